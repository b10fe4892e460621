/** What a lost connection means to open files: they wait for it, or end, with ENETDOWN and then the end of the file. */
export const ON_DISCONNECT = ['wait', 'error'] as const;
export type OnDisconnect = (typeof ON_DISCONNECT)[number];
