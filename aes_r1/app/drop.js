// Reads dropped or chosen photographs in the browser and hands each to the server inside its own event.
const say = (text) => { element.querySelector(".status").textContent = text; };
const base64 = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(file);
});
// The element is rendered anew with every verdict, so the lines that screen readers follow stand outside of it.
const insertedLine = (insert, attributes) => {
  const line = document.createElement("p");
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
  insert(line);
  return line;
};
const spoken = insertedLine((line) => document.body.append(line), { id: "spoken", role: "status", "aria-live": "polite" });
const refusal = insertedLine((line) => element.after(line), { id: "refusal", role: "alert", class: "problem" });
new MutationObserver(() => {
  const text = element.querySelector(".status")?.textContent.trim();
  if (text && text !== spoken.textContent) spoken.textContent = text;
}).observe(element, { subtree: true, childList: true, characterData: true });
// The server keeps what this tab was shown under the tab's own secret, and shows it again after a reload.
const known = sessionStorage.getItem("visit");
const visit = known ?? crypto.randomUUID();
sessionStorage.setItem("visit", visit);
if (known) setTimeout(() => trigger("submit", { visit }), 0);
const list = (names) => names.length > 3 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(", ");
async function send(files) {
  const all = [...files], over = all.slice(props.most), large = [];
  const refuse = () => {
    const lines = [];
    if (over.length) lines.push(`Only ${props.most} at a time. Not taken: ${list(over.map((file) => file.name))}.`);
    if (large.length) lines.push(`Larger than ${props.max_bytes / 1e6} MB: ${list(large)}.`);
    refusal.textContent = lines.join(" ");
  };
  refuse();
  for (const file of all.slice(0, props.most)) {
    if (file.size > props.max_bytes) {
      large.push(file.name);
      refuse();
      continue;
    }
    const data = await base64(file);
    say(`${file.name} waits for the critic`);
    trigger("upload", { name: file.name, data, visit });
  }
}
element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  send(event.target.files).then(() => { event.target.value = ""; });
});
element.addEventListener("dragover", (event) => {
  event.preventDefault();
  element.querySelector(".drop").classList.add("over");
});
element.addEventListener("dragleave", () => element.querySelector(".drop").classList.remove("over"));
element.addEventListener("drop", (event) => {
  event.preventDefault();
  element.querySelector(".drop").classList.remove("over");
  send(event.dataTransfer.files);
});
