// The canvas of a unit: a picture with layers, drawn on by pointer and keys. It stands in the unit, or over the window.
import {Bar, KEYS} from "./bar.mjs";
import {LAYERS} from "./document.mjs";
import {History, historyKey} from "./history.mjs";
import {fill, pixelOf, stroke} from "./raster.mjs";
import {Viewport} from "./viewport.mjs";
import {make} from "./controls.mjs";

const TOOL_KEYS = {b: "pen", e: "eraser", l: "line", f: "fill", h: "pan"};
const ANGLE = Math.PI / 12;

export class Canvas {
    // unit: what the canvas belongs to (see unit_canvas.mjs); it is told changed(layers), regionShown() and closed().
    constructor(unit, name, regionColour) {
        this.unit = unit;
        this.regionColour = regionColour;
        this.active = "drawing";
        this.tool = "pen";
        this.colour = "#ffffff";
        this.sizes = {drawing: 4, mask: 32, region: 64};
        this.enlarged = false;
        this.history = new History(() => this.bar?.show(this));
        this.view = new Viewport(`Canvas of ${name}. ${KEYS}`, this);
        this.brush = make("div", {className: "cnet-brush", hidden: true});
        this.view.element.append(this.brush);
        this.cross = null; // where the keys have the pen, and whether it is down
        this.bar = new Bar(this);
        this.element = make("dialog", {className: "cnet-canvas"}, this.bar.top, this.view.element, this.bar.legend, this.bar.bottom, ...this.bar.folds);
        this.element.setAttribute("aria-label", `Canvas of ${name}`);
        this.element.addEventListener("keydown", (event) => this.key(event));
        this.element.addEventListener("cancel", (event) => {
            event.preventDefault();
            this.enlarge(false);
        });
        this.element.addEventListener("paste", (event) => this.taken(event, event.clipboardData));
        this.element.addEventListener("drop", (event) => this.taken(event, event.dataTransfer));
        this.element.addEventListener("dragover", (event) => event.preventDefault());
        // the page's own watchers are not to follow every move of a slider
        for (const kind of ["input", "change"]) this.element.addEventListener(kind, (event) => event.stopPropagation());
        this.others = make("canvas", {className: "cnet-layer cnet-layer-others"});
    }

    // A picture that is dropped or pasted onto the canvas is the unit's.
    taken(event, data) {
        const file = Array.from(data?.files ?? []).find(({type}) => type.startsWith("image/") || type === "application/json");
        const address = file ? "" : data?.getData("text/uri-list") ?? "";
        if (!file && !address) return;
        event.preventDefault();
        event.stopPropagation();
        if (file) this.unit.takeFile(file);
        else this.unit.takeAddress(address);
    }

    // Shows another document. remembered: the one before comes back by undo.
    show(document, remembered = true) {
        const before = this.document;
        this.put(document);
        if (!before || !remembered) return;
        const entry = {bytes: before.bytes, layers: LAYERS, kept: before, swap: () => {
            const now = this.document;
            this.put(entry.kept);
            entry.kept = now;
        }};
        this.history.push(entry);
    }

    put(document) {
        this.document = document;
        document.grown = () => this.stack();
        Object.assign(this.others, {width: document.width, height: document.height});
        this.stack();
        this.view.setSize(document.width, document.height);
        const side = Math.max(document.width, document.height);
        this.sizes = {drawing: Math.max(2, Math.round(side / 128)), mask: Math.round(side / 16), region: Math.round(side / 8)};
        if (document.paper) this.colour = document.paper === "#ffffff" ? "#000000" : "#ffffff";
        this.bar.show(this);
        this.unit.regionShown();
    }

    stack() {
        const {background, layers} = this.document;
        this.view.stage.replaceChildren(background, ...["drawing", "region", "mask"].flatMap((name) => {
            const own = layers.has(name) ? [layers.get(name).canvas] : [];
            return name === "region" ? [this.others, ...own] : own;
        }));
    }

    chooseLayer(name) {
        this.active = name;
        if (name === "region") this.unit.regionShown();
        this.bar.show(this);
    }

    chooseTool(name) {
        this.tool = name;
        this.bar.show(this);
    }

    setColour(colour) {
        this.colour = colour;
        if (this.tool === "eraser" || this.tool === "pan") this.tool = "pen";
        this.bar.show(this);
    }

    setSize(size) {
        this.sizes[this.active] = Math.min(Math.max(Math.round(size), 1), 200);
        this.bar.show(this);
    }

    // Pointers

    get layer() {
        return this.document.layer(this.active);
    }

    value(tool) {
        if (tool === "eraser") return 0;
        return this.active === "drawing" ? pixelOf(this.colour) : this.layer.colour;
    }

    point(event) {
        const [x, y] = this.view.place(event);
        const pressure = event.pointerType === "pen" && event.pressure > 0 ? event.pressure : 1;
        return {x, y, r: (this.sizes[this.active] * pressure) / 2};
    }

    begin(event) {
        const tool = event.buttons & 32 ? "eraser" : this.tool; // a pen turned round
        if (tool === "pan") {
            this.view.grip = "pan";
            return;
        }
        const at = this.point(event);
        if (tool === "fill") {
            this.fillAt(at);
            return;
        }
        const from = event.shiftKey && this.last && tool !== "line" ? this.last : at;
        this.under = {tool, start: at, last: at, value: this.value(tool), layer: this.layer};
        this.under.layer.draw((layer) => stroke(layer, from, at, this.under.value));
    }

    move(event) {
        if (!this.under) return;
        const {tool, value, layer} = this.under;
        if (tool === "line") {
            this.under.last = this.lineEnd(event);
            layer.revert();
            layer.draw((one) => stroke(one, this.under.start, this.under.last, value));
            return;
        }
        const moves = event.getCoalescedEvents?.() ?? [];
        for (const one of moves.length ? moves : [event]) {
            const next = this.point(one);
            layer.draw((surface) => stroke(surface, this.under.last, next, value));
            this.under.last = next;
        }
    }

    lineEnd(event) {
        const end = this.point(event);
        if (!event.shiftKey) return end;
        const {x, y} = this.under.start;
        const angle = Math.round(Math.atan2(end.y - y, end.x - x) / ANGLE) * ANGLE, length = Math.hypot(end.x - x, end.y - y);
        return {x: x + length * Math.cos(angle), y: y + length * Math.sin(angle), r: end.r};
    }

    end() {
        if (!this.under) return;
        const {last, layer} = this.under;
        this.last = last;
        this.under = null;
        this.commit(layer);
    }

    cancel() {
        if (!this.under) return;
        this.under.layer.revert();
        this.under = null;
    }

    hover(event) {
        const pen = event && this.tool !== "pan" && this.tool !== "fill";
        this.brush.hidden = !pen;
        if (!pen) return;
        const [x, y] = this.view.place(event);
        this.showBrush(x, y);
    }

    showBrush(x, y) {
        const size = Math.max(this.sizes[this.active] * this.view.zoom, 3);
        Object.assign(this.brush.style, {width: `${size}px`, height: `${size}px`,
            transform: `translate(${x * this.view.zoom + this.view.x - size / 2}px, ${y * this.view.zoom + this.view.y - size / 2}px)`});
    }

    viewed() {
        if (this.document) this.bar?.showState(this.document, this.view.zoom);
        if (this.cross) this.showBrush(this.cross.x, this.cross.y);
    }

    // Changes

    fillAt({x, y}) {
        const value = this.value("fill");
        this.layer.draw((layer) => fill(layer, x, y, value));
        this.commit();
    }

    commit(layer = this.layer) {
        const entry = layer.commit();
        if (!entry) return;
        entry.layers = [layer.name];
        this.history.push(entry);
        this.unit.changed(entry.layers);
    }

    clearLayer() {
        this.layer.clear();
        this.commit();
    }

    invertLayer() {
        this.layer.invert();
        if (this.active !== "drawing") return this.commit();
        const lines = this.layer.commit(), behind = this.document.invertBackground();
        this.setColour(this.document.paper ? {"#ffffff": "#000000", "#000000": "#ffffff"}[this.document.paper] : this.colour);
        this.history.push({layers: ["drawing"], bytes: lines.bytes, swap: () => {
            lines.swap();
            behind.swap();
        }});
        return this.unit.changed(["drawing"]);
    }

    undo() {
        this.cancel();
        this.unit.changed(this.history.undo()?.layers ?? []);
    }

    redo() {
        this.cancel();
        this.unit.changed(this.history.redo()?.layers ?? []);
    }

    // Keys

    key(event) {
        if (event.target.matches("input:not([type=range]):not([type=color])")) return;
        const direction = historyKey(event);
        const drawn = event.target === this.view.element && (this.view.key(event) || this.drawKey(event));
        if (direction) this[direction]();
        else if (!drawn && !this.toolKey(event)) return;
        event.preventDefault();
        event.stopPropagation();
    }

    toolKey(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return false;
        const key = event.key.toLowerCase();
        if (TOOL_KEYS[key]) this.chooseTool(TOOL_KEYS[key]);
        else if (LAYERS[Number(key) - 1]) this.chooseLayer(LAYERS[Number(key) - 1]);
        else if (key === "x") this.setColour(this.colour === "#ffffff" ? "#000000" : "#ffffff");
        else if (key === "[") this.setSize(this.sizes[this.active] / 1.2 - 1);
        else if (key === "]") this.setSize(this.sizes[this.active] * 1.2 + 1);
        else return false;
        return true;
    }

    // Arrows move a cross, Enter puts the pen down at it and takes it up.
    drawKey(event) {
        const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
        const step = steps[event.key];
        if ((!step && event.key !== "Enter") || event.ctrlKey || event.metaKey || this.tool === "pan") return false;
        const {width, height} = this.document;
        this.cross ??= {x: width / 2, y: height / 2};
        const r = this.sizes[this.active] / 2;
        if (step) {
            const far = Math.max(1, Math.round(Math.max(width, height) / 128)) * (event.shiftKey ? 8 : 1);
            const next = {x: Math.min(Math.max(this.cross.x + step[0] * far, 0), width), y: Math.min(Math.max(this.cross.y + step[1] * far, 0), height), r};
            if (this.under?.byKeys) this.drawTo(next);
            this.cross = next;
        } else this.penByKeys(r);
        this.brush.hidden = false;
        this.showBrush(this.cross.x, this.cross.y);
        return true;
    }

    penByKeys(r) {
        if (this.under?.byKeys) return this.end();
        const at = {...this.cross, r};
        if (this.tool === "fill") return this.fillAt(at);
        this.under = {tool: this.tool, start: at, last: at, value: this.value(this.tool), layer: this.layer, byKeys: true};
        return this.drawTo(at);
    }

    drawTo(next) {
        const {tool, start, last, value, layer} = this.under;
        if (tool === "line") layer.revert();
        layer.draw((one) => stroke(one, tool === "line" ? start : last, next, value));
        this.under.last = next;
    }

    // Where it stands

    get isOpen() {
        return this.element.open;
    }

    open() {
        this.element.setAttribute("open", ""); // show() would move the focus, and the page with it
        this.view.fit();
    }

    enlarge(on) {
        if (on === this.enlarged || !this.isOpen) return;
        this.enlarged = on;
        this.element.close();
        this.element.classList.toggle("cnet-enlarged", on);
        if (on) this.element.showModal();
        else this.open();
        this.view.element.focus({preventScroll: true});
        this.view.fit();
        this.bar.show(this);
    }

    close() {
        if (this.under) this.end();
        this.enlarge(false);
        this.element.removeAttribute("open");
        this.unit.closed();
    }

    // Of other units: [name, colour, picture or canvas].
    showRegions(others) {
        const context = this.others.getContext("2d");
        const {width, height} = this.document;
        context.clearRect(0, 0, width, height);
        for (const [, , tinted] of others) context.drawImage(tinted, 0, 0, width, height);
        const own = this.document.layers.has("region") || this.active === "region";
        this.bar.showLegend([...(own ? [[`${this.unit.name} (this)`, this.regionColour]] : []), ...others.map(([name, colour]) => [name, colour])]);
    }
}
