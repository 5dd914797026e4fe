// Preloaded into a Node server: it listens on loopback, on a free port instead of the one asked for, and says which.
// LOOPBACK_PORTS=kept leaves it the port that it asks for.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (first, ...rest) {
  const options = typeof first === "object" && first !== null ? first : { port: first };
  const callback = rest.find((argument) => typeof argument === "function");
  const port = process.env.LOOPBACK_PORTS === "kept" ? options.port : 0;
  this.once("listening", () => process.stdout.write(`listening ${options.port} ${this.address().port}\n`));
  return listen.call(this, { ...options, host: "127.0.0.1", port }, callback);
};
