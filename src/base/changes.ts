/** Something that changes now and then, and those who want to know. Telling is synchronous and costs nothing while nobody listens. */
export class Changes {
  private readonly listeners = new Set<() => void>();

  get listenerCount(): number {
    return this.listeners.size;
  }

  /** @returns takes the listener back */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  /** Listeners must not throw. */
  tell(): void {
    for (const listener of this.listeners) listener();
  }
}
