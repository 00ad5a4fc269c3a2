// Keeps a page fresh from the server's events, and says so when it is not. Everything works without it, less freshly.
"use strict";
(() => {
  const SILENT_MS = 1200; // the server says something twice a second; after this its silence counts
  const LOOK_MS = 100;
  let source = null, topic = null, elements = new Map(), known = {}, plot = null, plotKey = "", plotData = null;
  let heardAt = performance.now(), ageAtHeard = 0, limit = 2, hasHeard = false;

  const index = () => {
    elements = new Map();
    for (const element of document.querySelectorAll("[data-k]")) {
      const key = element.dataset.k;
      if (!elements.has(key)) elements.set(key, []);
      elements.get(key).push(element);
    }
  };

  const show = (key, text) => {
    for (const element of elements.get(key) || []) {
      const attribute = element.dataset.a;
      if (attribute) element.setAttribute(attribute, text);
      else if (element.textContent !== text) element.textContent = text;
    }
  };

  const heard = (event) => {
    const message = JSON.parse(event.data);
    heardAt = performance.now(); ageAtHeard = message.age; limit = message.limit; hasHeard = true;
    for (const [key, text] of Object.entries(message.c)) {
      if (key.endsWith(":version") && key in known && known[key] !== text)
        document.body.dispatchEvent(new CustomEvent(key.split(":")[0]));
      known[key] = text;
      show(key, text);
    }
    if (plot && message.t !== null && plotKey in known) extend(message.t, parseFloat(known[plotKey]));
    judge();
    if (message.t !== null) document.dispatchEvent(new CustomEvent("twinloop", { detail: message }));
  };

  const judge = () => {
    const silent = performance.now() - heardAt, age = ageAtHeard + silent / 1000;
    let words = "";
    if (silent > SILENT_MS) words = `nothing heard from the console for ${(silent / 1000).toFixed(0)} s`;
    else if (hasHeard && age > limit) words = `the newest state is ${age.toFixed(0)} s old`;
    const banner = document.getElementById("stale");
    if (!banner) return;
    if (words) {
      document.body.dataset.stale = "1";
      document.getElementById("stale-words").textContent = words;
    } else if (hasHeard) delete document.body.dataset.stale;
    if (words || hasHeard) banner.hidden = !words;
  };

  const listen = () => {
    const main = document.getElementById("main");
    if (!document.body.dataset.stream || !main) return;
    index();
    for (const [key, text] of Object.entries(known)) show(key, text);
    if (source && topic === main.dataset.topic && source.readyState !== EventSource.CLOSED) return;
    if (source) source.close();
    topic = main.dataset.topic;
    source = new EventSource("/stream?topic=" + encodeURIComponent(topic));
    source.onmessage = heard;
  };

  const drawTrend = async () => {
    if (plot) { plot.destroy(); plot = null; }
    const place = document.getElementById("trend");
    if (!place || !place.dataset.name) return;
    const answer = await fetch("/trend?name=" + encodeURIComponent(place.dataset.name));
    if (!answer.ok) return;
    const found = await answer.json();
    plotKey = place.dataset.key; plotData = [found.t, found.v];
    const axis = { stroke: "#161616", grid: { stroke: "#b4b4b4" }, ticks: { stroke: "#8a8a8a" } };
    plot = new uPlot({
      width: Math.max(place.clientWidth - 4, 200), height: 220, legend: { show: false }, cursor: { show: false },
      axes: [axis, { ...axis, size: 70 }],
      series: [{}, { stroke: "#161616", width: 1.5, points: { show: false } }],
    }, plotData, place);
  };

  const extend = (t, value) => {
    const [times, values] = plotData;
    if (times.length && t <= times[times.length - 1]) return;
    times.push(t); values.push(Number.isNaN(value) ? null : value);
    while (times.length > 1 && t - times[0] > 600) { times.shift(); values.shift(); }
    plot.setData(plotData);
  };

  const begin = () => { listen(); drawTrend(); };
  document.addEventListener("DOMContentLoaded", begin);
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "main" || event.detail.target?.id === "main") { begin(); document.getElementById("main").focus({ preventScroll: false }); }
    else index();
  });
  // A second click must not send a form twice; the server would see that it is the same, too.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "post" && !form.classList.contains("stop")) {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "1";
      setTimeout(() => delete form.dataset.sent, 3000);
    }
  }, true);
  setInterval(judge, LOOK_MS);
})();
