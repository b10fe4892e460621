/** Two WebSocketTransports joined by a real connection on 127.0.0.1. */
import type { AddressInfo, Socket } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { WebSocketTransport, noMask } from '../../src/tunnel/socket.js';

export interface WsPair {
  readonly client: WebSocketTransport;
  readonly server: WebSocketTransport;
  /** The connection under the client. */
  readonly stream: Socket;
  readonly rawClient: WebSocket;
  end(): void;
}

export function openWsPair(maxPayload = 1 << 20): Promise<WsPair> {
  return new Promise((resolve) => {
    const options = { port: 0, host: '127.0.0.1', perMessageDeflate: false, maxPayload };
    const listening = new WebSocketServer(options, () => {
      const { port } = listening.address() as AddressInfo;
      const clientOptions = { perMessageDeflate: false, generateMask: noMask, maxPayload };
      const rawClient = new WebSocket(`ws://127.0.0.1:${port}`, clientOptions);
      let stream: Socket;
      let server: WebSocketTransport | undefined;
      let client: WebSocketTransport | undefined;
      const settle = (): void => {
        if (server === undefined || client === undefined) return;
        const end = (): void => {
          rawClient.terminate();
          listening.close();
        };
        resolve({ client, server, stream, rawClient, end });
      };
      rawClient.on('error', () => undefined);
      rawClient.on('upgrade', (response) => {
        stream = response.socket;
      });
      rawClient.on('open', () => {
        client = new WebSocketTransport(rawClient, stream);
        settle();
      });
      listening.on('connection', (ws, request) => {
        server = new WebSocketTransport(ws, request.socket);
        settle();
      });
    });
  });
}
