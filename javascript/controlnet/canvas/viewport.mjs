// A stage that is zoomed and panned: by wheel, two fingers, keys, the middle button or a drag while the space bar is held.
// What else a pointer does is its owner's: begin(event), move(event), end(event), cancel(), hover(event).

const LEAST = 0.05, MOST = 40;
const STEP = 1.25;

export class Viewport {
    constructor(label, owner) {
        this.owner = owner;
        this.element = document.createElement("div");
        this.element.className = "cnet-viewport";
        this.element.tabIndex = 0;
        this.element.setAttribute("role", "application");
        this.element.setAttribute("aria-label", label);
        this.stage = document.createElement("div");
        this.stage.className = "cnet-stage";
        this.element.append(this.stage);
        this.width = this.height = 1;
        this.zoom = 1;
        this.x = this.y = 0;
        this.fitted = true;
        this.grip = "";
        this.spaceHeld = this.penSeen = false;
        this.fingers = new Map();
        this.listen();
    }

    listen() {
        const on = (kind, act) => this.element.addEventListener(kind, act);
        on("pointerdown", (event) => this.down(event));
        on("pointermove", (event) => this.moved(event));
        on("pointerup", (event) => this.up(event));
        on("pointercancel", (event) => this.up(event));
        on("pointerleave", () => this.owner.hover?.(null));
        on("contextmenu", (event) => event.preventDefault());
        on("wheel", (event) => this.wheel(event));
        on("keyup", (event) => { if (event.key === " ") this.hold(false); });
        on("blur", () => this.hold(false));
        new ResizeObserver(() => (this.fitted ? this.fit() : this.move(0, 0))).observe(this.element);
    }

    setSize(width, height) {
        Object.assign(this, {width, height});
        Object.assign(this.stage.style, {width: `${width}px`, height: `${height}px`});
        this.element.style.setProperty("--cnet-aspect", `${width} / ${height}`);
        this.fit();
    }

    // The pointer's place in the picture.
    place({clientX, clientY}) {
        const box = this.element.getBoundingClientRect();
        return [(clientX - box.left - this.x) / this.zoom, (clientY - box.top - this.y) / this.zoom];
    }

    fit() {
        const {clientWidth, clientHeight} = this.element;
        if (!clientWidth || !clientHeight) return;
        this.zoom = Math.min(Math.max(Math.min((clientWidth - 8) / this.width, (clientHeight - 8) / this.height), LEAST), MOST);
        this.x = (clientWidth - this.width * this.zoom) / 2;
        this.y = (clientHeight - this.height * this.zoom) / 2;
        this.fitted = true;
        this.show();
    }

    zoomBy(factor, clientX, clientY) {
        const box = this.element.getBoundingClientRect();
        const x = (clientX ?? box.left + box.width / 2) - box.left, y = (clientY ?? box.top + box.height / 2) - box.top;
        const zoom = Math.min(Math.max(this.zoom * factor, LEAST), MOST);
        this.x = x - ((x - this.x) * zoom) / this.zoom;
        this.y = y - ((y - this.y) * zoom) / this.zoom;
        this.zoom = zoom;
        this.move(0, 0);
    }

    // Some of the picture always stays in sight.
    move(dx, dy) {
        const {clientWidth, clientHeight} = this.element;
        const keep = 40;
        this.x = Math.min(Math.max(this.x + dx, keep - this.width * this.zoom), clientWidth - keep);
        this.y = Math.min(Math.max(this.y + dy, keep - this.height * this.zoom), clientHeight - keep);
        this.fitted = false;
        this.show();
    }

    show() {
        this.stage.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
        this.stage.style.setProperty("--cnet-pixel", `${1 / this.zoom}px`);
        this.stage.style.imageRendering = this.zoom > 2 ? "pixelated" : "auto";
        this.owner.viewed?.();
    }

    hold(on) {
        this.spaceHeld = on;
        this.element.style.cursor = on ? "grab" : "";
    }

    // In a page that scrolls, the wheel is the page's until the picture has the focus.
    wheel(event) {
        if (!event.ctrlKey && !this.element.matches(":focus") && !this.element.closest("dialog:modal")) return;
        event.preventDefault();
        this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) / 500), event.clientX, event.clientY);
    }

    down(event) {
        this.element.focus({preventScroll: true});
        if (event.pointerType === "pen") this.penSeen = true;
        if (event.pointerType === "touch") this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
        if (this.fingers.size > 2) return;
        event.preventDefault();
        this.element.setPointerCapture(event.pointerId);
        this.last = [event.clientX, event.clientY];
        if (this.fingers.size === 2) {
            if (this.grip === "tool") this.owner.cancel();
            this.grip = "pinch";
        } else if (event.button === 1 || this.spaceHeld || (event.pointerType === "touch" && this.penSeen)) this.grip = "pan"; // beside a pen, a hand rests
        else if (event.button === 0 || event.button === 5) {
            this.grip = "tool";
            this.owner.begin(event);
        }
    }

    moved(event) {
        if (this.grip === "pinch") this.pinch(event);
        else if (this.grip === "pan") {
            this.move(event.clientX - this.last[0], event.clientY - this.last[1]);
            this.last = [event.clientX, event.clientY];
        } else if (this.grip === "tool") this.owner.move(event);
        if (this.grip !== "pinch") this.owner.hover?.(event.pointerType === "touch" ? null : event);
    }

    pinch(event) {
        if (!this.fingers.has(event.pointerId)) return;
        const [a, b] = this.fingers.values();
        const span = Math.hypot(a[0] - b[0], a[1] - b[1]), middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
        this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
        const [c, d] = this.fingers.values();
        const x = (c[0] + d[0]) / 2, y = (c[1] + d[1]) / 2;
        this.move(x - middle[0], y - middle[1]);
        if (span > 0) this.zoomBy(Math.hypot(c[0] - d[0], c[1] - d[1]) / span, x, y);
    }

    up(event) {
        this.fingers.delete(event.pointerId);
        if (this.grip === "tool") {
            if (event.type === "pointercancel") this.owner.cancel();
            else this.owner.end(event);
        }
        if (!this.fingers.size || this.grip !== "pinch") this.grip = "";
    }

    // Keys of the view; true where the event was one of them.
    key(event) {
        if (event.key === " ") this.hold(true);
        else if (event.ctrlKey || event.metaKey) return false;
        else if (event.altKey) {
            const steps = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]};
            if (!steps[event.key]) return false;
            this.move(...steps[event.key]);
        } else if (event.key === "+" || event.key === "=") this.zoomBy(STEP);
        else if (event.key === "-") this.zoomBy(1 / STEP);
        else if (event.key === "0") this.fit();
        else return false;
        event.preventDefault();
        return true;
    }
}
