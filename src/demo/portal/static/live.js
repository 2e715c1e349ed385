// Shows the samples of /ws/usage and sends the filter. Connects again when the connection ends.
"use strict";

const state = document.getElementById("state");
const total = document.getElementById("total");
const rates = document.getElementById("rates");
const words = document.getElementById("words");
const RETRY_MS = 2000;
let socket;

function show(word, style) {
  state.textContent = word;
  state.className = "badge " + style;
}

// Names come from users: text only, never markup.
function row(rate) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = "/sims/" + rate.iccid;
  link.textContent = rate.name;
  const meter = document.createElement("meter");
  meter.max = 900;
  meter.value = rate.kbps;
  const amount = document.createElement("span");
  amount.className = "amount";
  amount.textContent = rate.kbps + " kbit/s";
  item.append(link, " ", meter, " ", amount);
  return item;
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss://" : "ws://";
  socket = new WebSocket(scheme + location.host + "/ws/usage");
  socket.onopen = () => {
    show("connected", "active");
    if (words.value) socket.send(words.value);
  };
  socket.onmessage = (message) => {
    const sample = JSON.parse(message.data);
    total.textContent = sample.total_kbps + " kbit/s";
    rates.replaceChildren(...sample.sims.map(row));
  };
  socket.onclose = () => {
    show("disconnected", "suspended");
    setTimeout(connect, RETRY_MS);
  };
}

document.getElementById("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN) socket.send(words.value);
});
connect();
