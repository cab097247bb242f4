// What is wrong with the page that is open, for a person who can't see it well: a list of sentences.
const wrong = [];
const visible = (element) => {
  const box = element.getBoundingClientRect();
  const style = getComputedStyle(element);
  return box.width > 1 && box.height > 1 && style.visibility === "visible" && !element.closest(".hidden, .skip, details:not([open]) > :not(summary)");
};
const colour = (text) => {
  const parts = text.match(/[\d.]+/g).map(Number);
  return { r: parts[0], g: parts[1], b: parts[2], a: parts.length > 3 ? parts[3] : 1 };
};
const luminance = ({ r, g, b }) => {
  const part = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const found = colour(getComputedStyle(one).backgroundColor);
    if (found.a === 1) return found;
  }
  return colour(getComputedStyle(document.documentElement).backgroundColor);
};
const contrast = (one, other) => {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};

// WCAG 2.2 AA: 4.5 to 1 for text, 3 to 1 for what is large, and for what is drawn.
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.data.trim() || !visible(element) || ["METER", "SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const ratio = contrast(colour(style.color), behind(element));
  if (ratio < (large ? 3 : 4.5)) wrong.push(`contrast ${ratio.toFixed(2)} of "${node.data.trim().slice(0, 40)}"`);
}
for (const icon of document.querySelectorAll("svg.icon")) {
  if (!visible(icon)) continue;
  const ratio = contrast(colour(getComputedStyle(icon).color), behind(icon));
  if (ratio < 3) wrong.push(`contrast ${ratio.toFixed(2)} of an icon in ${icon.parentElement.textContent.slice(0, 40)}`);
  // Colour alone says nothing: a word stands beside it.
  if (!(icon.parentElement.textContent + icon.parentElement.parentElement.textContent).trim()) wrong.push("an icon without a word");
}

// Landmarks, each with a name where there are several of a kind.
for (const [landmark, count] of [["main", 1], ["body > header", 1], ["body > footer", 1], ["h1", 1]]) {
  if (document.querySelectorAll(landmark).length !== count) wrong.push(`${landmark}: not ${count}`);
}
const name = (element) => element.getAttribute("aria-label") ||
  (element.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent.trim()).filter(Boolean).join(" ");
for (const element of document.querySelectorAll("section, nav, article, meter, [role=region]")) {
  if (!name(element)) wrong.push(`${element.localName}.${element.className} has no name`);
}
for (const element of document.querySelectorAll("a, summary")) {
  if (!element.textContent.trim()) wrong.push("a link without words");
}
if (document.documentElement.lang !== "en") wrong.push("no language");
for (const table of document.querySelectorAll("table")) {
  if (![...table.querySelectorAll("th")].every((cell) => cell.scope)) wrong.push("a head of a table without scope");
}
// What scrolls can be reached by the keyboard.
for (const element of document.querySelectorAll("main *")) {
  if (visible(element) && element.scrollWidth > element.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
    && element.tabIndex < 0) wrong.push(`${element.localName}.${element.className} scrolls and has no focus`);
}
// Nothing is wider than the window, which on a phone grows with what is in it.
if (document.documentElement.scrollWidth > screen.width + 1) wrong.push(`the page is ${document.documentElement.scrollWidth} wide on a screen of ${screen.width}`);
return wrong;
