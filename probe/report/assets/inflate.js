/* Data blobs of the page (base64 of gzip), inflated when they are needed; and small helpers of the other scripts. */

async function inflate(name) {
  const text = atob(document.getElementById(`blob-${name}`).textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function inflateText(name) {
  return new TextDecoder().decode(await inflate(name));
}

const scheme = matchMedia("(prefers-color-scheme: dark)");
const colours = new Map();
scheme.addEventListener("change", () => colours.clear());

/** A colour variable of the present scheme, cached: computing styles is slow. */
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}

function onSchemeChange(action) {
  scheme.addEventListener("change", action);
}

/** An element with its properties and children. Text is set as text, never as HTML. */
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Size a canvas for the screen's pixel density; its drawing context, in CSS pixels. */
function sharp(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
