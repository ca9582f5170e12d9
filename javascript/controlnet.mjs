// The page's side of the ControlNet panel: one object for each unit, made once the page is there.
import {ControlNetUnit} from "./controlnet/unit.mjs";
import {Panel} from "./controlnet/panel.mjs";
import {connectCompare} from "./controlnet/compare.mjs";
import {holdUntilSent} from "./controlnet/canvas/unit_canvas.mjs";
import {connectTrain} from "./controlnet/train.mjs";

function start() {
    const panels = {};
    for (const tab of ["txt2img", "img2img"]) {
        const root = gradioApp().getElementById(`${tab}_controlnet`);
        if (!root || root.dataset.cnetReady) continue;
        root.dataset.cnetReady = "yes";
        const panel = panels[tab] = new Panel(root, tab);
        const buttons = panel.tabButtons();
        panel.units = buttons.map((button, index) => new ControlNetUnit(panel, tab, index, button));
        panel.refresh();
    }
    if (Object.keys(panels).length) {
        connectCompare(panels);
        holdUntilSent(panels);
    }
    connectTrain();
}

if (gradioApp().querySelector("#txt2img_prompt")) start();
else onUiLoaded(start);
