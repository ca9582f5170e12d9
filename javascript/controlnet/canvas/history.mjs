// Undo and redo. An entry is what a change replaced: `swap()` exchanges it with what is there now.

const BYTES = 128 * 1024 * 1024;
const ENTRIES = 200;

export class History {
    constructor(changed = () => {}) {
        this.done = [];
        this.undone = [];
        this.changed = changed;
    }

    push(entry) {
        if (!entry) return;
        this.done.push(entry);
        this.undone = [];
        let bytes = this.done.reduce((sum, one) => sum + (one.bytes ?? 0), 0);
        while (this.done.length > 1 && (bytes > BYTES || this.done.length > ENTRIES)) bytes -= this.done.shift().bytes ?? 0;
        this.changed();
    }

    undo() {
        return this.move(this.done, this.undone);
    }

    redo() {
        return this.move(this.undone, this.done);
    }

    move(from, to) {
        const entry = from.pop();
        if (!entry) return null;
        entry.swap();
        to.push(entry);
        this.changed();
        return entry;
    }

    clear() {
        this.done = [];
        this.undone = [];
        this.changed();
    }
}

// Ctrl+Z, Ctrl+Shift+Z and Ctrl+Y: "undo", "redo" or nothing.
export function historyKey(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return null;
    const key = event.key.toLowerCase();
    if (key === "z") return event.shiftKey ? "redo" : "undo";
    return key === "y" ? "redo" : null;
}
