// The page of `lisa-ros web`. Words reach the document as text nodes, never as HTML.

const $ = (id) => document.getElementById(id);
const COLORS = [[230, 60, 60], [0, 158, 220], [255, 190, 0], [0, 180, 120], [204, 121, 200], [240, 130, 0]];
const RETRY = 700; // ms until the next try to reach the server
const LONGEST = 20000; // characters of an instruction that are sent at all
const KEPT_TURNS = 60; // older ones leave the page
const MEANINGS = {
  NOT_FOUND: "Not found.", TEXT_ONLY: "", OK: "", NO_IMAGE: "No image.", STALE_IMAGE: "No fresh image.", REJECTED: "Refused.",
  CANCELLED: "Stopped.", TIMEOUT: "Out of time.", MODEL_ERROR: "The model failed.", NOT_READY: "Not ready.",
};

let socket = null;
let state = { ready: false, alive: false, node: "", camera: "", follow: "", questions: [], model: "" };
let turns = []; // oldest first
let shown = null; // the turn whose image is on the stage; null: the live image
let pointer = null; // where it was last, over which canvas
let chosen = null; // number of the instance that is pointed at
let count = 0; // of questions, also by the server's name for them
let following = null; // {ask, instances, label} while a thing is followed
let recorder = null;
let dialogue = newName();

function newName() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

// --- masks -----------------------------------------------------------------------------------

/** Write `value` where a mask is: run lengths as COCO has them, column by column, to one byte a pixel, row by row. */
function paintRuns(text, owners, value) {
  const { size: [height, width], counts } = JSON.parse(text);
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let run = 0, shift = 0, letter;
    do {
      letter = counts.charCodeAt(at++) - 48;
      run |= (letter & 31) << shift;
      shift += 5;
    } while (letter & 32);
    if (letter & 16) run |= -1 << shift;
    if (runs.length > 2) run += runs[runs.length - 2];
    runs.push(run);
  }
  let end = 0;
  runs.forEach((run, index) => {
    let x = Math.floor(end / height), y = end % height;
    end += run;
    if (index % 2) while (run--) {
      owners[y * width + x] = value;
      if (++y === height) y = 0, x++;
    }
  });
}

/** For each pixel the place (from 1) of the instance that owns it; the smallest lies on top. */
function ownersOf(instances, width, height) {
  const owners = new Uint8Array(width * height);
  const order = instances.map((_, index) => index).sort((a, b) => instances[b].area - instances[a].area);
  for (const index of order) if (instances[index].mask) paintRuns(instances[index].mask, owners, index + 1);
  return owners;
}

/** Draw the masks over what the canvas shows: colour inside, an edge, and darker what is not meant. */
function paintMasks(context, answer, dim) {
  const { width, height, owners, instances } = answer;
  const layer = new ImageData(width, height);
  const pixels = new Uint32Array(layer.data.buffer).fill((dim << 24) >>> 0); // alpha, blue, green, red
  const colors = instances.map((one) => COLORS[(one.id - 1) % COLORS.length]).map(([r, g, b]) => (b << 16) | (g << 8) | r);
  const edges = colors.map((color) => (color | (255 << 24)) >>> 0);
  const insides = colors.map((color, index) => (color | ((instances[index].id === chosen ? 165 : 105) << 24)) >>> 0);
  const reach = Math.max(1, Math.round(width / 320)); // pixels of an edge
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p++) {
      const owner = owners[p];
      if (!owner) continue;
      const isEdge = x < reach || y < reach || x >= width - reach || y >= height - reach ||
        owners[p - reach] !== owner || owners[p + reach] !== owner ||
        owners[p - reach * width] !== owner || owners[p + reach * width] !== owner;
      pixels[p] = (isEdge ? edges : insides)[owner - 1];
    }
  }
  const over = new OffscreenCanvas(width, height);
  over.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(over, 0, 0);
}

/** A canvas with the image of a turn and, if it has any, its masks. */
function paintTurn(canvas, turn) {
  const width = turn.answer.width || turn.image.width, height = turn.answer.height || turn.image.height;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(turn.image, 0, 0, width, height);
  if (turn.answer.instances?.length) {
    turn.answer.owners ??= ownersOf(turn.answer.instances, width, height);
    paintMasks(context, turn.answer, 72);
  }
}

function metres(value) {
  return value < 1 ? `${(value * 100).toFixed(value < 0.1 ? 1 : 0)} cm` : `${value.toFixed(2)} m`;
}

/** What is known about an instance, in words. */
function factsOf(one) {
  const facts = [`score ${one.score === null ? "?" : one.score.toFixed(2)}`];
  if (one.distance) facts.push(`${metres(one.distance)} away`);
  else if (one.position) facts.push(`at ${one.position.map((v) => v.toFixed(2)).join(", ")} m in ${one.frame_id}`);
  if (one.size) facts.push(`${one.size.map((v) => metres(v)).join(" × ")}`);
  if (one.track && one.track !== "visible") facts.push(one.track);
  return facts;
}

// --- the stage -------------------------------------------------------------------------------

/** Show a turn's image, or with null the live one. */
function show(turn) {
  shown = turn?.image ? turn : null;
  chosen = null;
  $("stage").classList.toggle("answered", shown !== null);
  $("still").hidden = shown === null;
  for (const one of turns) one.button.setAttribute("aria-current", String(one === shown));
  refresh();
}

/** Draw the stage anew and list what is on it. */
function refresh() {
  if (shown) {
    paintTurn($("still"), shown);
    $("still").setAttribute("aria-label", `The image that was asked about: ${shown.instruction}`);
  }
  $("badge").textContent = following ? `following ${following.label}` : "";
  $("badge").hidden = shown !== null || !following;
  listThings();
  setWhy($("to-live"), shown ? "" : "This is the live image.");
  const saving = shown?.answer.status ? "" : "Ask something first: an answer can be saved.";
  setWhy($("save-png"), saving);
  setWhy($("save-json"), saving);
  const nothing = "Ask for a thing first, then follow it.";
  setWhy($("follow"), following ? "" : state.follow || (followable() ? "" : nothing));
  $("follow").textContent = following ? "Stop following" : "Follow";
  $("follow").setAttribute("aria-pressed", String(following !== null));
  const open = turns.some((one) => one.open) || following;
  setWhy($("stop"), open ? "" : "There is nothing to stop.");
  if (!$("tip").hidden) pointAt(pointer); // what is under it may have moved or gone
}

function listThings() {
  const instances = (shown ? shown.answer.instances : following?.instances) ?? [];
  const key = JSON.stringify([instances.map((one) => [one.id, one.label, ...factsOf(one)]), chosen]);
  if ($("things").dataset.key === key) return;
  const focused = document.activeElement?.dataset?.thing;
  $("things").dataset.key = key;
  $("things").replaceChildren(...instances.map((one) => {
    const item = element("li"), button = element("button");
    const swatch = element("span", "", "swatch");
    swatch.style.background = `rgb(${COLORS[(one.id - 1) % COLORS.length]})`;
    button.type = "button";
    button.dataset.thing = one.id;
    button.append(swatch, element("span", one.label), element("span", factsOf(one).join(" · "), "facts"));
    button.title = one.position ? "" : one.pose_reason;
    button.setAttribute("aria-pressed", String(one.id === chosen));
    button.onclick = () => choose(one.id === chosen ? null : one.id);
    item.append(button);
    return item;
  }));
  if (focused) $("things").querySelector(`[data-thing="${Number(focused)}"]`)?.focus();
}

function choose(id) {
  if (id === chosen) return;
  chosen = id;
  if (shown) paintTurn($("still"), shown);
  listThings();
}

/** The instance under a pointer over a canvas, if any. */
function instanceAt({ clientX, clientY }, canvas, answer) {
  if (!answer?.owners) return null;
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height); // object-fit: contain
  const x = Math.floor((clientX - box.left - (box.width - canvas.width * scale) / 2) / scale);
  const y = Math.floor((clientY - box.top - (box.height - canvas.height * scale) / 2) / scale);
  if (x < 0 || y < 0 || x >= answer.width || y >= answer.height) return null;
  return answer.instances[answer.owners[y * answer.width + x] - 1] ?? null;
}

function pointAt({ currentTarget: canvas, clientX, clientY }) {
  pointer = { currentTarget: canvas, clientX, clientY };
  const one = instanceAt(pointer, canvas, canvas === $("still") ? shown?.answer : following);
  if (canvas === $("still")) choose(one?.id ?? null);
  if (!one) return hideTip();
  const tip = $("tip"), stage = $("stage").getBoundingClientRect();
  tip.replaceChildren(element("strong", one.label), ...factsOf(one).map((fact) => element("div", fact)));
  tip.hidden = false;
  const left = clientX - stage.left + 14, top = clientY - stage.top + 14;
  tip.style.left = `${Math.max(4, Math.min(left, stage.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(top, stage.height - tip.offsetHeight - 4))}px`;
}

function hideTip() {
  $("tip").hidden = true;
}

/** A live image has come: draw it, with the masks that belong to it while a thing is followed. */
async function onLive(message, blob) {
  const bitmap = await createImageBitmap(blob).catch(() => null);
  send({ type: "drawn" });
  if (!bitmap) return;
  const canvas = $("live"), context = canvas.getContext("2d");
  const tracked = message.ask !== undefined && message.ask === following?.ask;
  const width = tracked ? message.width : bitmap.width, height = tracked ? message.height : bitmap.height;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  context.drawImage(bitmap, 0, 0, width, height);
  if (tracked) {
    const visible = message.instances.filter((one) => one.area > 0);
    Object.assign(following, { width, height, instances: message.instances, label: message.instances[0]?.label ?? following.label });
    following.owners = ownersOf(message.instances, width, height);
    if (visible.length) paintMasks(context, following, 0);
    if (!shown) refresh();
  }
  bitmap.close();
  canvas.dataset.frames = Number(canvas.dataset.frames ?? 0) + 1;
  if (state.ready && !state.camera) $("why").hidden = true;
}

// --- dialogue --------------------------------------------------------------------------------

function ask(instruction) {
  if (!instruction.trim()) return tell("Type an instruction first, for example: the red mug");
  if (instruction.length > LONGEST) return tell(`The instruction has ${instruction.length} characters; at most ${LONGEST} can be sent.`);
  const turn = addTurn(instruction);
  if (!send({ type: "ask", ask: turn.ask, instruction, mode: $("mode").value, dialogue })) {
    endTurn(turn, "The robot's web server cannot be reached; ask again once it is back.");
  }
}

function addTurn(instruction, source = "") {
  const item = element("li"), button = element("button", "", "turn");
  const turn = { ask: ++count % 65536, instruction, source, answer: {}, open: true, asked: performance.now(), item, button };
  turn.words = element("span", "", "words");
  turn.fault = element("span", "", "fault");
  turn.took = element("span", "", "took");
  button.type = "button";
  button.dataset.open = "true";
  button.append(element("span", instruction, "asked"), turn.words, turn.fault, turn.took);
  button.onclick = () => turn.image ? show(turn) : tell("There is no image to this question.");
  item.append(button);
  $("turns").append(item);
  turns.push(turn);
  if (turns.length > KEPT_TURNS) forgetTurn(turns[0]);
  $("turns").scrollTop = $("turns").scrollHeight;
  $("suggestions").hidden = true;
  refresh();
  return turn;
}

function forgetTurn(turn) {
  turns = turns.filter((one) => one !== turn);
  turn.item.remove();
  if (shown === turn) show(null);
}

/** What has come of a turn so far is put on the screen. */
function update(turn) {
  const answer = turn.answer;
  turn.words.textContent = answer.answer ?? answer.text ?? "";
  if (turn.image) {
    turn.thumbnail ??= turn.button.appendChild(element("canvas"));
    turn.thumbnail.setAttribute("aria-hidden", "true");
    const isNew = shown !== turn && !turn.wasShown;
    turn.wasShown = true;
    if (isNew && turn === turns.at(-1)) show(turn);
    else if (shown === turn) refresh();
    if (answer.instances?.length && !turn.overlaid) {
      turn.overlaid = true;
      requestAnimationFrame(() => setTimeout(() => {
        turn.button.dataset.overlay = (performance.now() - turn.asked).toFixed(1);
      }));
    }
    const small = turn.thumbnail;
    [small.width, small.height] = [208, Math.round(208 * $("still").height / $("still").width)];
    if (shown === turn) small.getContext("2d").drawImage($("still"), 0, 0, small.width, small.height);
    else {
      const whole = document.createElement("canvas");
      paintTurn(whole, turn);
      small.getContext("2d").drawImage(whole, 0, 0, small.width, small.height);
    }
  }
  if ($("turns").scrollHeight - $("turns").scrollTop - $("turns").clientHeight < 200) $("turns").scrollTop = $("turns").scrollHeight;
}

function endTurn(turn, fault = "") {
  turn.open = false;
  turn.button.dataset.open = "false";
  turn.fault.textContent = fault;
  const found = turn.answer.instances ?? [];
  $("said").textContent = [turn.words.textContent, fault, found.map((one) => `${one.label}, ${factsOf(one).join(", ")}`).join("; ")].filter(Boolean).join(" ");
  $("turns").scrollTop = $("turns").scrollHeight;
  refresh();
}

function onAnswer(turn, message) {
  turn.answer = message;
  update(turn);
  turn.button.dataset.status = message.status;
  turn.button.dataset.firstMask = message.timings.first_mask;
  turn.button.dataset.total = message.timings.total;
  turn.took.textContent = turn.source + (message.timings.total ? `${Math.round(message.timings.total)} ms · ${message.model}` : "");
  const reason = message.error.charAt(0).toUpperCase() + message.error.slice(1);
  endTurn(turn, [MEANINGS[message.status], reason].filter(Boolean).join(" "));
}

// --- follow ----------------------------------------------------------------------------------

/** The instance that `Follow` would begin with: the chosen one, or the first. */
function followable() {
  const turn = shown ?? turns.findLast((one) => one.answer.query_id);
  const found = turn?.answer.query_id ? turn.answer.instances : [];
  return found.length ? { turn, one: found.find((it) => it.id === chosen) ?? found[0] } : null;
}

function follow() {
  if (following) return send({ type: "stop" });
  const { turn, one } = followable();
  following = { ask: ++count % 65536, label: one.label, instances: [] };
  send({ type: "follow", ask: following.ask, query_id: turn.answer.query_id, instance_id: one.id });
  show(null);
}

function endFollow(reason) {
  following = null;
  if (reason) tell(`Following has ended: ${reason}`);
  refresh();
}

// --- state, notices --------------------------------------------------------------------------

function tell(sentence) {
  $("notice").textContent = sentence;
  $("notice").hidden = !sentence;
}

/** With a reason a button is off and, pressed, says why. */
function setWhy(button, why) {
  button.dataset.why = why;
  button.setAttribute("aria-disabled", String(Boolean(why)));
  button.title = why;
}

function onPress(id, action) {
  $(id).addEventListener("click", () => {
    const why = $(id).dataset.why;
    tell(why || "");
    if (!why) action();
  });
}

function onState(message) {
  state = message;
  const fault = state.node || state.camera;
  $("state").dataset.level = state.ready ? (state.camera ? "wait" : "good") : "bad";
  $("state-text").textContent = state.ready ? (state.camera ? "no image" : `ready · ${state.model} on ${state.device}`) : state.node;
  $("why").textContent = fault;
  $("why").hidden = !fault;
  const asked = turns.map((turn) => turn.instruction);
  $("suggestions").replaceChildren(...state.questions.map((question) => {
    const button = element("button", question);
    button.type = "button";
    button.onclick = () => ask(question);
    return button;
  }));
  $("suggestions").hidden = !state.questions.some((question) => !asked.includes(question));
  $("next-table").hidden = !state.questions.length;
  refresh();
}

// --- the socket ------------------------------------------------------------------------------

function send(message) {
  if (socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(message));
  return true;
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    tell("");
    send({ type: "watch", on: !document.hidden });
  };
  socket.onmessage = (event) => {
    if (typeof event.data === "string") return onMessage(JSON.parse(event.data), null);
    const length = new DataView(event.data).getUint32(0, true);
    const head = new TextDecoder().decode(new Uint8Array(event.data, 4, length));
    onMessage(JSON.parse(head), new Blob([new Uint8Array(event.data, 4 + length)], { type: "image/jpeg" }));
  };
  socket.onclose = async () => {
    for (const turn of turns.filter((one) => one.open)) endTurn(turn, "The connection was lost before the answer was complete; ask again.");
    if (following) endFollow("the connection was lost");
    onState({ ...state, ready: false, alive: false, node: "the robot's web server does not answer; trying again", camera: "" });
    const reply = await fetch("/").catch(() => null);
    if (reply && !reply.ok) onState({ ...state, node: await reply.text() });
    setTimeout(connect, RETRY);
  };
}

async function onMessage(message, blob) {
  const turn = turns.find((one) => one.ask === message.ask);
  if (message.type === "state") onState(message);
  else if (message.type === "live") await onLive(message, blob);
  else if (message.type === "overheard") {
    const heard = addTurn(message.query, "asked elsewhere · ");
    heard.image = blob && await createImageBitmap(blob).catch(() => null);
    onAnswer(heard, message);
  } else if (message.type === "fault") tell(message.error);
  else if (message.type === "follow_ended") endFollow(message.reason);
  else if (message.type === "failed" && following?.ask === message.ask) endFollow(message.error);
  else if (!turn) return;
  else if (message.type === "image") {
    turn.image = await createImageBitmap(blob).catch(() => null);
    update(turn);
  } else if (message.type === "progress" && turn.open) {
    turn.answer = message;
    update(turn);
  } else if (message.type === "answer") onAnswer(turn, message);
  else if (message.type === "failed") endTurn(turn, message.error);
}

// --- saving ----------------------------------------------------------------------------------

function save(name, blob) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function nameOf(turn) {
  return `lisa_${turn.instruction.toLowerCase().replace(/[^a-z0-9]+/g, "_").slice(0, 40) || "answer"}`;
}

// --- the microphone --------------------------------------------------------------------------

/** 16 kHz mono WAV of what the browser has recorded. */
async function wavOf(recorded) {
  const decoded = await new AudioContext().decodeAudioData(await recorded.arrayBuffer());
  const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(decoded.duration * 16000)), 16000);
  const source = new AudioBufferSourceNode(offline, { buffer: decoded });
  source.connect(offline.destination);
  source.start();
  const samples = (await offline.startRendering()).getChannelData(0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const letters = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  letters(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, 16000, true); view.setUint32(28, 32000, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  letters(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

async function speak() {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    const none = error.name === "NotFoundError";
    return tell(none ? "This device has no microphone." : "The browser does not let this page use the microphone; allow it in the address bar.");
  }
  recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = async () => {
    stream.getTracks().forEach((track) => track.stop());
    setSpeaking(null);
    tell("Listening to what was said …");
    try {
      const reply = await fetch("/speech", { method: "POST", body: await wavOf(new Blob(parts)) });
      const heard = await reply.json();
      if (heard.error) return tell(heard.error);
      tell("");
      $("instruction").value = heard.text;
      if (heard.sure) submit();
      else tell("Is this what you said? Press Ask, or say it again.");
    } catch {
      tell("The recording could not be sent or read; try again.");
    }
  };
  recorder.start();
  setSpeaking(recorder);
}

function setSpeaking(now) {
  recorder = now;
  $("speak").textContent = now ? "Done" : "Speak";
  $("speak").setAttribute("aria-pressed", String(Boolean(now)));
}

// --- the hands -------------------------------------------------------------------------------

function submit() {
  const line = $("instruction");
  tell("");
  ask(line.value);
  line.value = "";
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
onPress("to-live", () => show(null));
onPress("follow", follow);
onPress("stop", () => send({ type: "stop" }));
onPress("save-png", () => $("still").toBlob((blob) => save(`${nameOf(shown)}.png`, blob)));
onPress("save-json", () => {
  const { owners, type, ask: number, ...answer } = shown.answer;
  save(`${nameOf(shown)}.json`, new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }));
});
onPress("next-table", () => { send({ type: "next_table" }); show(null); });
onPress("speak", speak);
onPress("anew", () => {
  dialogue = newName();
  send({ type: "stop" });
  turns.slice().forEach(forgetTurn);
  show(null);
  onState(state);
});
for (const id of ["still", "live"]) {
  $(id).addEventListener("pointermove", pointAt);
  $(id).addEventListener("pointerdown", pointAt);
  // a finger that is lifted leaves too, and what it tapped is to be read then
  $(id).addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideTip());
}
$("live").addEventListener("click", () => shown && show(null));
document.addEventListener("visibilitychange", () => send({ type: "watch", on: !document.hidden }));
document.addEventListener("keydown", (event) => {
  const typing = event.target === $("instruction");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("instruction").focus();
  } else if (event.key === "Escape") {
    if (turns.some((one) => one.open) || following) send({ type: "stop" });
    else show(null);
  } else if (event.key === "ArrowUp" && typing && !$("instruction").value && turns.length) {
    event.preventDefault();
    $("instruction").value = turns.at(-1).instruction;
  }
});
setWhy($("speak"), !window.isSecureContext || !navigator.mediaDevices
  ? "Browsers give the microphone only to localhost and HTTPS pages: start `lisa-ros web --tls` and open its https link."
  : "");
setWhy($("anew"), "");
refresh();
connect();
