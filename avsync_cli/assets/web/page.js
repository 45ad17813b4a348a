"use strict";
// The list is the server's: this page shows it, and asks for what is clicked. All text goes in as text.
const SOON_MS = 400, LATER_MS = 2500;
const tab = crypto.randomUUID(), at = id => document.getElementById(id);
const limitBytes = Number(document.body.dataset.limit);
const coming = []; // files of this tab and their keys, sent one after the other
const rows = new Map(), said = new Map();
let sending = null, timer = 0, polled = 0, isOver = false, videos = [], isCut = false;

const sizeOf = bytes => bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB`
  : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;

async function ask(method, path, body) {
  const answer = await fetch(path, { method, body, cache: "no-store", signal: body ? sending.control.signal : undefined });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.words || "avsync did not answer"), { status: answer.status });
  return told;
}

function complain(words) {
  at("trouble").textContent = words;
  at("trouble").hidden = !words;
}

async function attempt(doing, name) {
  try { return await doing(); } catch (error) { if (!isOver) complain(name ? `${name}: ${error.message}` : error.message); }
}

async function look() {
  clearTimeout(timer);
  const turn = ++polled;
  try {
    const { files } = await ask("GET", `/api/files?tab=${tab}`);
    if (turn !== polled) return;
    if (isOver) { isOver = false; complain(""); }
    show(files);
    const busy = files.some(file => !["done", "refused"].includes(file.state) || ["waiting", "working"].includes(file.mending));
    timer = setTimeout(look, busy || sending ? SOON_MS : LATER_MS);
  } catch (error) {
    if (turn !== polled) return;
    isOver = true;
    complain(error.status === 403 ? "This page is closed: its address was for another visit."
      : "avsync has ended, and all files of this page are erased. Start it again to go on.");
    timer = setTimeout(look, LATER_MS);
  }
}

const DOING = { expected: "waiting to be sent", uploading: "sending", waiting: "waiting for its turn", checking: "checking" };

function show(files) {
  const keys = new Set(files.map(file => file.key));
  for (const [key, row] of rows) if (!keys.has(key)) {
    const next = row.nextElementSibling || row.previousElementSibling;
    if (row.contains(document.activeElement)) (next?.querySelector(".remove") || at("choose")).focus();
    row.remove();
    rows.delete(key);
    said.delete(key);
  }
  for (const file of files) {
    if (!rows.has(file.key)) addRow(file);
    showFile(rows.get(file.key), file);
  }
  at("list").hidden = !files.length;
  at("clear").hidden = files.length < 2;
}

function addRow(file) {
  const row = at("file").content.firstElementChild.cloneNode(true), path = `/api/files/${file.key}`;
  row.querySelector("h3").textContent = file.name;
  row.querySelector(".size").textContent = file.is_upload ? sizeOf(file.size) : `${sizeOf(file.size)}, of the folder`;
  row.querySelector(".report").href = `/files/${file.key}/report`;
  row.querySelector(".copy").href = `/files/${file.key}/copy`;
  for (const each of row.querySelectorAll(".actions > *")) each.setAttribute("aria-label", `${each.textContent}: ${file.name}`);
  row.querySelector(".mend").onclick = () => attempt(() => ask("POST", `${path}/mend`), file.name).then(look);
  row.querySelector(".remove").onclick = () => remove(file.key, file.name).then(look);
  rows.set(file.key, row);
  at("files").append(row);
}

function showFile(row, file) {
  const part = name => row.querySelector(name), put = (name, text) => { if (part(name).textContent !== text) part(name).textContent = text; };
  const verdict = file.state === "refused" ? { status: "error", title: "Not taken", sentence: "", words: file.words, sure: "" } : file.verdict;
  part(".verdict").hidden = !verdict;
  if (verdict) {
    part(".verdict").className = `verdict ${verdict.status}`;
    put(".title", `${verdict.title}.`);
    put(".sentence", verdict.sentence);
    put(".words", [verdict.words, verdict.sure].filter(Boolean).join(", "));
  }
  const mending = { waiting: "waiting for its turn to be mended", working: "making the mended copy, and checking it" }[file.mending];
  put(".doing", mending || DOING[file.state] || "");
  const bar = part("progress"), share = file.mending === "working" ? null : file.share;
  bar.hidden = file.state === "expected" || file.state === "waiting" || file.mending === "waiting";
  bar.setAttribute("aria-label", `${part(".doing").textContent}: ${file.name}`);
  if (share === null || share === undefined) bar.removeAttribute("value"); else bar.value = share;
  if (file.state === "checking" && share === 1) put(".doing", "writing the report");
  else if (["uploading", "checking"].includes(file.state) && typeof share === "number") put(".doing", `${DOING[file.state]}, ${Math.floor(share * 100)} %`);
  part(".mended").hidden = !["done", "failed"].includes(file.mending);
  put(".mended", { done: `Mended: ${file.words}.`, failed: `Not mended: ${file.words}.` }[file.mending] || "");
  part(".report").hidden = !file.has_report;
  part(".mend").hidden = !file.may_be_mended;
  part(".copy").hidden = !file.copy_name;
  if (file.copy_name) part(".copy").download = file.copy_name;
  const told = [verdict && `${verdict.title}. ${verdict.sentence || verdict.words}`, part(".mended").textContent].filter(Boolean).join(" ");
  if (told && said.get(file.key) !== told) {
    said.set(file.key, told);
    at("told").textContent = `${file.name}: ${told}`;
  }
}

async function remove(key, name) {
  const place = coming.findIndex(each => each.key === key);
  if (place >= 0) coming.splice(place, 1);
  if (sending?.key === key) sending.control.abort();
  await attempt(() => ask("DELETE", `/api/files/${key}`), name);
}

async function take(files) {
  complain("");
  for (const file of files) {
    const asked = new URLSearchParams({ name: file.name, size: file.size, tab });
    const told = await attempt(() => ask("POST", `/api/files?${asked}`), file.name);
    if (told) coming.push({ key: told.key, file });
  }
  look();
  if (!sending) send();
}

async function send() {
  while (coming.length) {
    sending = { ...coming.shift(), control: new AbortController() };
    const { key, file } = sending;
    try { await ask("PUT", `/api/files/${key}`, file); } catch (error) {
      if (error.name !== "AbortError" && error.status === undefined && file.size <= limitBytes) await explain(key, file.name);
    }
  }
  sending = null;
  look();
}

// A folder that was dropped cannot be read, and a server that has heard enough hangs up.
async function explain(key, name) {
  const { files } = await ask("GET", `/api/files?tab=${tab}`).catch(() => ({ files: [] }));
  if (files.find(file => file.key === key)?.state === "refused") return;
  complain(`${name}: could not be read. Is it a folder?`);
  await ask("DELETE", `/api/files/${key}`).catch(() => {});
}

async function lookAtFolder() {
  const told = await attempt(() => ask("GET", "/api/folder"));
  if (!told?.name) return;
  ({ videos, is_cut: isCut } = told);
  at("folder").hidden = false;
  at("folder-name").textContent = told.name;
  at("search-label").hidden = videos.length < 8;
  showVideos();
}

function showVideos() {
  const words = at("search").value.trim().toLowerCase().split(/\s+/);
  const found = videos.filter(video => words.every(word => video.name.toLowerCase().includes(word)));
  at("videos").replaceChildren(...found.map(video => {
    const row = at("video").content.firstElementChild.cloneNode(true), button = row.querySelector("button");
    row.querySelector(".name").textContent = video.name;
    row.querySelector(".size").textContent = sizeOf(video.size);
    button.setAttribute("aria-label", `Check: ${video.name}`);
    button.onclick = () => attempt(() => ask("POST", `/api/folder/${video.key}`), video.name).then(look);
    return row;
  }));
  const count = videos.length === 1 ? "1 video" : `${videos.length} videos${isCut ? ", the first by name: there are more" : ""}`;
  at("folder-told").textContent = !videos.length ? "There is no video in it."
    : found.length < videos.length ? `${found.length} of ${count}` : count;
}

at("choose").onchange = () => { take([...at("choose").files]); at("choose").value = ""; };
at("clear").onclick = async () => { for (const [key, row] of [...rows]) await remove(key, row.querySelector("h3").textContent); look(); at("choose").focus(); };
at("again").onclick = lookAtFolder;
at("search").oninput = showVideos;
const carriesFiles = event => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", event => { if (carriesFiles(event)) { event.preventDefault(); at("drop").classList.add("over"); } });
addEventListener("dragleave", event => { if (!event.relatedTarget) at("drop").classList.remove("over"); });
addEventListener("drop", event => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  at("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
addEventListener("beforeunload", event => { if (sending || coming.length) event.preventDefault(); });
addEventListener("pagehide", () => navigator.sendBeacon(`/api/leave?tab=${tab}`));
addEventListener("pageshow", look);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
lookAtFolder();
