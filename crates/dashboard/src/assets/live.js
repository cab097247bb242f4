// Exchanges the parts of the page that changed, as they come. The page is whole without it.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const title = document.querySelector("title");
  // The server says something every 5 s; twice that and a little is a line that is dead.
  const silence = 12000;
  let heard = Date.now();
  let events = null;

  const say = (state, words) => {
    if (live.dataset.state === state) return;
    live.dataset.state = state;
    live.textContent = words;
  };

  // Times are written as they are; how long ago that was is added here, where the clock of the reader is.
  const ago = (milliseconds) => {
    const seconds = Math.max(0, Math.round(milliseconds / 1000));
    if (seconds < 90) return seconds + " s ago";
    if (seconds < 5400) return Math.round(seconds / 60) + " min ago";
    if (seconds < 129600) return Math.round(seconds / 3600) + " h ago";
    return Math.round(seconds / 86400) + " days ago";
  };
  const age = () => {
    const now = Date.now();
    for (const time of document.querySelectorAll("time")) {
      const words = ago(now - Date.parse(time.dateTime));
      if (time.dataset.ago !== words) time.dataset.ago = words;
    }
  };

  const headline = () => {
    const text = document.getElementById("headline-text");
    if (!text) return;
    const state = text.dataset.title ? text.dataset.title + " – " : "";
    document.title = state + title.dataset.plain;
    if (said.textContent !== text.textContent) said.textContent = text.textContent;
  };

  // What a reader has opened stays open, and the keyboard stays where it was.
  const exchange = (element, block) => {
    const open = new Set([...element.querySelectorAll("details[open]")].map((one) => one.id));
    element.className = block.class;
    element.dataset.version = block.version;
    element.innerHTML = block.html;
    for (const one of element.querySelectorAll("details")) {
      if (open.has(one.id)) one.open = true;
    }
  };

  // An element that has no id is found again by its place among those of its kind in its block.
  const place = (element) => {
    if (!element || element === document.body || !main.contains(element) || element === main) return null;
    const block = element.closest("main > div");
    if (!block) return null;
    const same = [...block.querySelectorAll(element.localName)];
    return { id: element.id, block: block.id, kind: element.localName, index: same.indexOf(element), left: element.scrollLeft };
  };
  const find = (where) => {
    if (where.id) return document.getElementById(where.id);
    const block = document.getElementById(where.block);
    return block ? block.querySelectorAll(where.kind)[where.index] : null;
  };

  const apply = (change) => {
    const where = place(document.activeElement);
    const scrolled = [...document.querySelectorAll(".scroll")].map((one) => [place(one), one.scrollLeft]);
    const mark = [];
    for (const block of change.blocks) {
      let element = document.getElementById(block.id);
      if (!element) {
        element = document.createElement("div");
        element.id = block.id;
        main.append(element);
      } else if (element.dataset.version === block.version) {
        continue;
      }
      exchange(element, block);
      mark.push(element);
    }
    if (change.order) {
      const wanted = new Set(change.order);
      for (const element of [...main.children]) if (!wanted.has(element.id)) element.remove();
      change.order.forEach((id, index) => {
        const element = document.getElementById(id);
        if (element && main.children[index] !== element) main.insertBefore(element, main.children[index] || null);
      });
    }
    for (const [one, left] of scrolled) {
      const element = one && find(one);
      if (element) element.scrollLeft = left;
    }
    if (where && document.activeElement !== find(where)) find(where)?.focus({ preventScroll: true });
    for (const element of mark) {
      element.classList.remove("changed");
      // Read, so that the animation begins anew.
      void element.offsetWidth;
      element.classList.add("changed");
    }
    age();
    headline();
  };

  const connect = () => {
    if (events) events.close();
    events = new EventSource(main.dataset.events);
    const hear = () => {
      heard = Date.now();
      say("live", "Live");
    };
    events.onopen = hear;
    events.addEventListener("beat", hear);
    events.addEventListener("change", (event) => {
      hear();
      apply(JSON.parse(event.data));
    });
    events.onerror = () => {
      // A stream that ended is opened again by the browser; one that was refused is not.
      if (events.readyState === EventSource.CLOSED) say("off", "Not live: refused; trying again");
    };
  };

  setInterval(() => {
    age();
    if (Date.now() - heard > silence) {
      say("off", "Not live: no word from the controller; trying again");
      heard = Date.now() - silence / 2;
      connect();
    }
  }, 1000);
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  age();
  headline();
  connect();
})();
