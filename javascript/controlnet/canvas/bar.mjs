// The bars above and below the canvas: layers, tools, colours, view, a new picture, keys.
import {button, choice, folded, make, numberField, slider} from "./controls.mjs";
import {Palette} from "./palette.mjs";

const TOOLS = [
    ["pen", "Pen", "Draw (B)"], ["eraser", "Eraser", "Take away (E)"], ["line", "Line", "A straight line (L); Shift: in steps of 15 degrees"],
    ["fill", "Fill", "Fill what is of one colour (F)"], ["pan", "Move", "Move the picture (H, or hold the space bar)"],
];
const LAYERS = [
    ["drawing", "Drawing", "The picture itself (1)"],
    ["mask", "Mask", "Where inpainting and other masks act (2)"],
    ["region", "Region", "Where in the picture the unit acts (3)"],
];
export const KEYS = "B pen · E eraser · L line · F fill · H move · X black/white · [ ] size · 1 2 3 layers · Ctrl+Z undo, "
    + "Ctrl+Shift+Z redo · + − 0 zoom, Alt+arrows or space bar and drag to move · arrows move the cross, Enter puts the pen "
    + "down and up · Shift+click draws on from the last point";

export class Bar {
    // owner: the canvas. Names of its methods are those of the buttons.
    constructor(owner) {
        this.owner = owner;
        this.layers = choice("Layer", LAYERS, (name) => owner.chooseLayer(name));
        this.tools = choice("Tool", TOOLS, (name) => owner.chooseTool(name));
        this.size = slider("Size", 1, 200, (value) => owner.setSize(value));
        this.palette = new Palette((colour) => owner.setColour(colour));
        this.undo = button("Undo", "Ctrl+Z", () => owner.undo());
        this.redo = button("Redo", "Ctrl+Shift+Z", () => owner.redo());
        this.state = make("span", {className: "cnet-canvas-state"});
        this.state.setAttribute("role", "status");
        this.fresh = this.freshPicture();
        this.keys = folded("Keys", "Keys of the canvas", make("p", {textContent: KEYS, className: "cnet-canvas-keys"}));
        this.enlarge = button("Enlarge", "Over the whole window", () => owner.enlarge(!owner.enlarged));
        this.legend = make("div", {className: "cnet-legend", hidden: true});
        this.top = make("div", {className: "cnet-canvas-bar"}, this.layers.element, this.tools.element, this.size.element, this.palette.element);
        this.bottom = make("div", {className: "cnet-canvas-bar"}, this.undo, this.redo,
            button("Clear", "Empty this layer", () => owner.clearLayer()),
            button("Invert", "Black and white, or what is masked and what is not, change places", () => owner.invertLayer()),
            button("−", "Smaller (−)", () => owner.view.zoomBy(0.8)), button("Fit", "The whole picture (0)", () => owner.view.fit()),
            button("+", "Larger (+)", () => owner.view.zoomBy(1.25)), this.state, this.fresh.opener,
            button("Take result", "Draw on the picture shown in the gallery", () => owner.unit.takeResult()), this.keys.opener, this.enlarge,
            button("Close", "Fold the canvas; what is drawn stays", () => owner.close()));
        this.folds = [this.palette.fold.part, this.fresh.part, this.keys.part];
    }

    freshPicture() {
        const width = numberField("Width", 512), height = numberField("Height", 512);
        const set = ([w, h]) => Object.assign(width.input, {value: w}) && Object.assign(height.input, {value: h});
        const start = (paper) => this.owner.unit.startBlank(width.value, height.value, paper) && fold.set(false);
        const fold = folded("New …", "Begin on an empty picture", make("div", {className: "cnet-canvas-bar"},
            width.element, height.element,
            button("Size of the job", "As Width and Height say", () => set(this.owner.unit.jobSize())),
            button("Size of this picture", "As it is now", () => set([this.owner.document.width, this.owner.document.height])),
            button("White on black", "Black paper: as control models want lines", () => start("#000000")),
            button("Black on white", "White paper", () => start("#ffffff"))));
        fold.opener.addEventListener("click", () => set(this.owner.unit.jobSize()));
        return fold;
    }

    // What the owner's settings are.
    show(owner) {
        this.layers.set(owner.active);
        this.tools.set(owner.tool);
        this.size.set(owner.sizes[owner.active]);
        this.palette.set(owner.colour);
        this.palette.element.hidden = owner.active !== "drawing";
        this.undo.disabled = !owner.history.done.length;
        this.redo.disabled = !owner.history.undone.length;
        this.enlarge.setAttribute("aria-pressed", String(owner.enlarged));
    }

    // The size of the picture and how large it is shown.
    showState({width, height}, zoom) {
        const text = `${width} × ${height} · ${Math.round(zoom * 100)} %`;
        if (this.state.textContent !== text) this.state.textContent = text;
    }

    // regions: [name, colour] of the units that act in a part of the picture only.
    showLegend(regions) {
        this.legend.hidden = !regions.length;
        this.legend.replaceChildren(...regions.map(([name, colour]) => {
            const swatch = make("span", {className: "cnet-swatch"});
            swatch.style.background = colour;
            return make("span", {}, swatch, ` ${name}`);
        }));
    }
}
