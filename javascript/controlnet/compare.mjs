// The page "Compare": maps go to a unit as its picture, or to the user's disk.
import {fail} from "./dialog.mjs";
import {fetchPicture, shownPicture} from "./picture.mjs";

const map = (number) => shownPicture(gradioApp().getElementById(`controlnet_compare_map_${number}`));
const preprocessor = (number) => gradioApp().querySelector(`#controlnet_compare_${number} input`)?.value ?? "map";

async function send(number, panels) {
    const picture = map(number);
    if (!picture) throw new Error("There is no map yet: choose a picture and click Compare.");
    const target = gradioApp().querySelector("#controlnet_compare_target input")?.value ?? "";
    const [, tab, index] = target.match(/(txt2img|img2img): unit (\d+)/) ?? [];
    const unit = panels[tab]?.units[Number(index)];
    if (!unit) throw new Error(`There is no unit for "${target}".`);
    await unit.takeMap(await fetchPicture(picture.src));
    unit.panel.open();
    (tab === "txt2img" ? switch_to_txt2img : switch_to_img2img)();
}

async function downloadAll() {
    for (let number = 0; gradioApp().getElementById(`controlnet_compare_map_${number}`); number += 1) {
        const picture = map(number);
        if (!picture) continue;
        const link = document.createElement("a");
        link.href = URL.createObjectURL(await fetchPicture(picture.src));
        link.download = `${number + 1}-${preprocessor(number).replace(/[^\w+-]+/g, "_")}.png`;
        link.click();
        URL.revokeObjectURL(link.href);
    }
}

export function connectCompare(panels) {
    for (let number = 0; ; number += 1) {
        const button = gradioApp().getElementById(`controlnet_compare_send_${number}`);
        if (!button) break;
        button.addEventListener("click", () => send(number, panels).catch(fail));
    }
    gradioApp().getElementById("controlnet_compare_download")?.addEventListener("click", () => downloadAll().catch(fail));
}
