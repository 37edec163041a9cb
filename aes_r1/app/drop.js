// Reads dropped or chosen photographs in the browser and hands each to the server inside its own event.
const say = (text) => { element.querySelector(".status").textContent = text; };
const base64 = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(reader.error);
  reader.readAsDataURL(file);
});
async function send(files) {
  for (const file of [...files].slice(0, props.most)) {
    if (file.size > props.max_bytes) {
      say(`${file.name} is larger than ${props.max_bytes / 1e6} MB`);
      continue;
    }
    const data = await base64(file);
    say(`${file.name} waits for the critic`);
    trigger("upload", { name: file.name, data });
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
