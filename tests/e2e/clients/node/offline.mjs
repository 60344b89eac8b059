// Ends a client's program that wants to reach another machine: no telemetry, no downloads.
import net from "node:net";

const LOOPBACK = ["127.0.0.1", "::1", "localhost"];
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...given) {
  const [options] = Array.isArray(given[0]) ? given[0] : given;
  const host = options.host ?? "localhost";
  if (!options.path && !LOOPBACK.includes(host)) {
    console.error(`the client wants to reach ${host}`);
    process.exit(97);
  }
  return connect.apply(this, given);
};
