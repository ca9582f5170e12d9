// The pen's colour: black, white, any other, or a thing of the segmentation palette by its name.
import {button, folded, make} from "./controls.mjs";

// [name, "#rrggbb"] of the server's palette, which the panel carries in its page.
function namedColours() {
    const holder = gradioApp().querySelector("[data-cnet-palette]");
    return holder ? JSON.parse(holder.dataset.cnetPalette) : [];
}

export class Palette {
    constructor(chosen) {
        this.chosen = chosen;
        this.named = namedColours();
        this.now = make("span", {className: "cnet-swatch"});
        this.name = make("span", {className: "cnet-colour-name"});
        this.other = make("input", {type: "color", title: "Another colour"});
        this.other.setAttribute("aria-label", "Another colour");
        this.other.addEventListener("input", () => chosen(this.other.value));
        this.search = make("input", {type: "search", placeholder: "sky, tree, person …"});
        this.search.setAttribute("aria-label", "Find a thing of the segmentation palette");
        this.search.addEventListener("input", () => this.list());
        this.search.addEventListener("keydown", (event) => {
            if (event.key === "Enter") this.things.querySelector("button")?.click();
        });
        this.things = make("div", {className: "cnet-things"});
        this.fold = folded("Palette", "Colours that segmentation models know, by name", make("div", {}, this.search, this.things));
        this.fold.opener.addEventListener("click", () => this.opened());
        this.element = make("div", {className: "cnet-colours"},
            make("span", {className: "cnet-colour-now"}, this.now, this.name),
            button("White", "White (X: black and white change places)", () => chosen("#ffffff")),
            button("Black", "Black (X: black and white change places)", () => chosen("#000000")), this.other);
        if (this.named.length) this.element.append(this.fold.opener);
    }

    opened() {
        if (this.fold.part.hidden) return;
        this.list();
        this.search.focus();
    }

    list() {
        const asked = this.search.value.trim().toLowerCase();
        const starts = ([name]) => (name.split(", ").some((word) => word.startsWith(asked)) ? 0 : 1);
        const found = this.named.filter(([name]) => name.includes(asked)).sort((a, b) => starts(a) - starts(b));
        this.things.replaceChildren(...found.map(([name, colour]) => {
            const thing = button("", name, () => this.chosen(colour));
            const swatch = make("span", {className: "cnet-swatch"});
            swatch.style.background = colour;
            thing.append(swatch, name.split(", ")[0]);
            return thing;
        }));
    }

    set(colour) {
        this.now.style.background = colour;
        this.other.value = colour;
        const named = this.named.find(([, known]) => known === colour);
        this.name.textContent = {"#ffffff": "white", "#000000": "black"}[colour] ?? named?.[0].split(", ")[0] ?? colour;
    }
}
