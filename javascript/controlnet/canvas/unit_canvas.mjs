// A unit's canvas and its pictures: what is drawn goes into them once the hand rests, and what else comes into them is shown.
import {fail, loadPicture} from "../dialog.mjs";
import {clearPicture, fetchPicture, putFile, shownPicture} from "../picture.mjs";
import {Canvas} from "./canvas.mjs";
import {Document} from "./document.mjs";
import {Layer} from "./layer.mjs";
import {pixelOf} from "./raster.mjs";

const PARTS = {drawing: "input_image", mask: "mask_image", region: "effective_region_mask"};
const COLOURS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#f032e6", "#000075"];
const REST = 500; // milliseconds without a stroke, after which the drawing is sent
const PATIENCE = 60000; // a large picture over a slow line
const LARGEST = 8192;

export class UnitCanvas {
    constructor(unit) {
        this.unit = unit;
        this.name = unit.name;
        this.colour = COLOURS[unit.index % COLOURS.length];
        this.known = {}; // by layer: the address of the picture that the canvas shows or has sent
        this.unsent = new Set();
        this.awaited = new Map(); // by layer: what ends the wait for the page to show what was sent
    }

    source(layer) {
        return shownPicture(this.unit.part(PARTS[layer]))?.src ?? "";
    }

    get document() {
        return this.canvas?.document;
    }

    get isOpen() {
        return Boolean(this.canvas?.isOpen);
    }

    // Opening and beginning

    async open() {
        this.place();
        if (!this.document || this.isStale()) await this.load();
        this.canvas.open();
        if (window.innerWidth < 600) this.canvas.enlarge(true);
        else this.canvas.view.element.focus({preventScroll: true});
    }

    place() {
        this.canvas ??= new Canvas(this, this.name, this.colour);
        const tabs = this.unit.part("input_tabs");
        if (this.canvas.element.parentElement !== tabs.parentElement) tabs.before(this.canvas.element);
        tabs.classList.add("cnet-behind-canvas");
    }

    closed() {
        this.unit.part("input_tabs").classList.remove("cnet-behind-canvas");
        this.sendSoon(0);
    }

    // Width and height of the next job, as the page has them.
    jobSize() {
        const side = (name) => Number(gradioApp().querySelector(`#${this.unit.tab}_${name} input[type=number]`)?.value) || 512;
        return [side("width"), side("height")];
    }

    startBlank(width, height, paper) {
        const good = (side) => Number.isInteger(side) && side >= 8 && side <= LARGEST;
        if (!good(width) || !good(height)) {
            fail(new Error(`Width and Height must be whole numbers from 8 to ${LARGEST}, not ${width} × ${height}.`));
            return false;
        }
        this.canvas.show(new Document(width, height, paper, this.colour));
        this.canvas.chooseLayer("drawing");
        this.changed(["drawing"]);
        for (const name of ["mask", "region"]) this.loadMask(name).catch(fail);
        return true;
    }

    // "New canvas": blank paper of the job's size. The unit's picture is loaded before, also while no canvas shows it:
    // the paper takes its place in the unit, and Undo is the only way back to it.
    async newCanvas() {
        this.place();
        if (this.source("drawing") && (!this.document || this.isStale())) await this.load();
        this.startBlank(...this.jobSize(), "#000000");
        await this.open();
    }

    async load() {
        const source = this.known.drawing = this.source("drawing");
        const picture = source ? await loadPicture(source) : null;
        const [width, height] = picture ? [picture.naturalWidth, picture.naturalHeight] : this.jobSize();
        this.canvas.show(new Document(width, height, picture ?? "#000000", this.colour));
        if (picture) this.canvas.setColour("#ffffff");
        this.say("");
        await Promise.all([this.loadMask("mask"), this.loadMask("region")]);
    }

    async loadMask(name) {
        const document = this.document;
        const source = this.known[name] = this.source(name);
        if (!source && !document.layers.has(name)) return;
        const picture = source ? await loadPicture(source) : null;
        if (this.document !== document) return;
        const layer = document.layer(name);
        if (picture) layer.loadMask(picture);
        else layer.clear();
        const entry = layer.commit();
        if (entry) this.canvas.history.push(Object.assign(entry, {layers: [name]}));
        if (name === "region") this.regionShown();
    }

    // What comes from elsewhere: an upload, a paste, "Take result", a reset

    isStale() {
        return Object.keys(PARTS).some((name) => !this.busyWith(name) && this.source(name) !== this.known[name]);
    }

    busyWith(name) {
        return this.unsent.has(name) || this.awaited.has(name);
    }

    // Called after every change of the panel's pictures.
    follow() {
        if (!this.document) return;
        for (const [name, wait] of this.awaited) {
            const now = this.source(name);
            if (!now) wait.emptied = true;
            if (wait.clears ? !now : now && (wait.emptied || now !== wait.before)) wait.done(now);
        }
        if (!this.isOpen || !this.isStale()) return;
        clearTimeout(this.following);
        this.following = setTimeout(() => this.takeOver().catch(fail), 300); // a picture that is replaced is away for a moment
    }

    async takeOver() {
        if (this.canvas.under) return this.follow();
        const changed = Object.keys(PARTS).filter((name) => !this.busyWith(name) && this.source(name) !== this.known[name]);
        if (changed.includes("drawing")) return this.load();
        await Promise.all(changed.map((name) => this.loadMask(name)));
    }

    // Sending

    changed(layers) {
        for (const name of layers) this.unsent.add(name);
        if (layers.length) this.sendSoon(REST);
        this.mark();
        if (layers.includes("region")) for (const other of this.unit.panel.units) if (other !== this.unit) other.canvas.regionShown();
    }

    sendSoon(wait) {
        clearTimeout(this.resting);
        this.resting = setTimeout(() => (this.canvas.under ? this.sendSoon(REST) : this.send().catch(fail)), wait);
    }

    // One after the other: a second picture must not overtake the first on its way into the page.
    send() {
        this.sending = (this.sending ?? Promise.resolve()).catch(() => {}).then(() => this.sendAll());
        return this.sending;
    }

    async sendAll() {
        for (const name of [...this.unsent]) {
            this.unsent.delete(name);
            await this.sendLayer(name);
        }
        this.mark();
    }

    // For whoever waits, in the page or from outside.
    mark() {
        this.canvas.element.dataset.busy = this.pending ? "yes" : "no";
    }

    async sendLayer(name) {
        const document = this.document, file = await document.file(name);
        const before = this.source(name);
        if (!file && !before) return;
        if (name === "drawing") this.say(document.paper ? "drawn" : "");
        if (name === "region" && file) this.unit.tick("controlnet_effective_region_mask_checkbox");
        const shown = new Promise((done, failed) => {
            const patience = setTimeout(() => {
                this.awaited.delete(name);
                this.unsent.add(name); // it goes with the next stroke, or when the canvas is closed
                failed(new Error(`${this.name}: the page has not taken what is drawn (${name}). Close the canvas to send it again.`));
            }, PATIENCE);
            this.awaited.set(name, {before, clears: !file, done: (source) => {
                clearTimeout(patience);
                this.awaited.delete(name);
                this.known[name] = source;
                done();
            }});
        });
        const part = this.unit.part(PARTS[name]);
        if (file) putFile(part, file, `${name}.png`);
        else clearPicture(part);
        await shown;
    }

    // Whether what the unit has is a drawing, for the choice of its preprocessor.
    say(text) {
        const field = this.unit.field("drawn");
        if (!field || field.value === text) return;
        field.value = text;
        updateInput(field);
    }

    get pending() {
        return this.unsent.size > 0 || this.awaited.size > 0 || Boolean(this.canvas?.under);
    }

    async settled() {
        clearTimeout(this.resting);
        if (this.canvas.under) this.canvas.end();
        while (this.pending) await this.send();
    }

    // Regions of all units together

    async regionShown() {
        if (!this.document) return;
        const others = await Promise.all(this.unit.panel.units.filter((one) => one !== this.unit).map((one) => one.canvas.region()));
        this.canvas.showRegions(others.filter(Boolean));
    }

    // [name, colour, what to draw] of this unit's region; null where it has none.
    async region() {
        const layer = this.document?.layers.get("region");
        if (layer && !layer.empty) return [this.name, this.colour, layer.canvas];
        const source = this.unit.isTicked("controlnet_effective_region_mask_checkbox") ? this.source("region") : "";
        if (!source) return null;
        if (this.tinted?.source !== source) {
            const picture = await loadPicture(source);
            const tinted = new Layer("region", picture.naturalWidth, picture.naturalHeight, pixelOf(this.colour));
            tinted.loadMask(picture);
            this.tinted = {source, canvas: tinted.canvas};
        }
        return [this.name, this.colour, this.tinted.canvas];
    }

    takeFile(file) {
        const component = this.unit.part(PARTS.drawing);
        if (/svg|json/.test(file.type)) this.unit.takeFile(component, file).catch(fail);
        else putFile(component, file, file.name);
    }

    // A picture dragged from elsewhere in the page.
    takeAddress(address) {
        if (new URL(address, location.href).origin !== location.origin) return;
        fetchPicture(address).then((picture) => putFile(this.unit.part(PARTS.drawing), picture)).catch(fail);
    }

    takeResult() {
        this.unit.takeResult().catch(fail);
    }
}

// A click that uses the pictures waits until what is drawn has come into them.
export function holdUntilSent(panels) {
    const users = '[id$="_generate"], [id$="_controlnet_trigger_preprocessor"], [id$="_copy_unit"]';
    document.addEventListener("click", (event) => {
        const button = event.composedPath().find((one) => one.matches?.(users));
        const pending = Object.values(panels).flatMap((panel) => panel.units).map((unit) => unit.canvas).filter((one) => one.pending);
        if (!button || !pending.length) return;
        event.stopImmediatePropagation();
        event.preventDefault();
        Promise.all(pending.map((one) => one.settled())).then(() => requestAnimationFrame(() => button.click())).catch(fail);
    }, true);
}
