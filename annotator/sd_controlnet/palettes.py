"""Colours of the classes of segmentation maps: control models know a thing by its colour.

From ADE20K's and COCO's own tools: 150 classes of SceneParsing (mmsegmentation and OneFormer have the same list), and
COCO's 133 panoptic classes. Six hexadecimal digits a class, in the order of the classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .images import Pixels


def _colours(digits: str) -> Pixels:
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 3)


ADE20K = _colours(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)
COCO = _colours(
    "dc143c770b2000008e0000e66a00e4003c640050640000460000c0faaa1e64aa1edcdc00af74affa001ea52a2aff4dff00e2fcb6b6ff"
    "00520078a69d6e4c00ae39ffc76400480076ffb3f0007d5cd10097bcd0b600dcb0ff63a45c00498581ff4eb4ff00e400aefff32d59ff"
    "8686679194aeffd0bac5e2ffab86016d3f36cf8aff97005f09503d5469334a4169a6c466d0c3d2ff6d41008f95b300c2d1636a057900"
    "e3ffcd93bad0994501035fa1a3ff007700aa00b6c700a578b782585f20008272876e8185a64a76db8eb94fd272b25a3e41460f7fa773"
    "3b696a8e6c2dc4ac005f3650804cffc93901f6007abfa2d0ffff8093d3cb966464a8abac9270c6d2aa645c8859da58b8f18100d911ff"
    "7c4ab5464646ffe4ff9ad000c1005c4c5b71ffb4c36a9ab0e6968c3c8fff8040805c5237fed47c494daeffa062ffffff68546da9a483"
    "e1c7ff89364a879edf07f6e76bffc83a2995b7798eff49616b8e23be9999928b8d4682b486c79cd1e28c60246c60606040aa4098fb98"
    "d0e5e4cebaab98a14074700000728f66669cfa8dff"
)

_NAMES = (
    "wall; building; sky; floor; tree; ceiling; road, route; bed; window; grass; cabinet; sidewalk, pavement; "
    "person; earth, ground; door; table; mountain, mount; plant; curtain; chair; car; water; painting, picture; "
    "sofa; shelf; house; sea; mirror; rug; field; armchair; seat; fence; desk; rock, stone; wardrobe, closet, "
    "press; lamp; tub; rail; cushion; base, pedestal, stand; box; column, pillar; signboard, sign; chest of "
    "drawers, chest, bureau, dresser; counter; sand; sink; skyscraper; fireplace; refrigerator, icebox; "
    "grandstand, covered stand; path; stairs; runway; case, display case, showcase, vitrine; pool table, billiard "
    "table, snooker table; pillow; screen door, screen; stairway, staircase; river; bridge, span; bookcase; "
    "blind, screen; coffee table; toilet, can, commode, crapper, pot, potty, stool, throne; flower; book; hill; "
    "bench; countertop; stove; palm, palm tree; kitchen island; computer; swivel chair; boat; bar; arcade "
    "machine; hovel, hut, hutch, shack, shanty; bus; towel; light; truck; tower; chandelier; awning, sunshade, "
    "sunblind; street lamp; booth; tv; plane; dirt track; clothes; pole; land, ground, soil; bannister, banister, "
    "balustrade, balusters, handrail; escalator, moving staircase, moving stairway; ottoman, pouf, pouffe, puff, "
    "hassock; bottle; buffet, counter, sideboard; poster, posting, placard, notice, bill, card; stage; van; ship; "
    "fountain; conveyer belt, conveyor belt, conveyer, conveyor, transporter; canopy; washer, automatic washer, "
    "washing machine; plaything, toy; pool; stool; barrel, cask; basket, handbasket; falls; tent; bag; minibike, "
    "motorbike; cradle; oven; ball; food, solid food; step, stair; tank, storage tank; trade name; microwave; "
    "pot; animal; bicycle; lake; dishwasher; screen; blanket, cover; sculpture; hood, exhaust hood; sconce; vase; "
    "traffic light; tray; trash can; fan; pier; crt screen; plate; monitor; bulletin board; shower; radiator; "
    "glass, drinking glass; clock; flag"
)
ADE20K_NAMES: tuple[str, ...] = tuple(_NAMES.split("; "))
"""What the classes of ADE20K are, in their order, as its own list says it."""


def ade20k() -> list[tuple[str, str]]:
    """(name, "#rrggbb") of each class of ADE20K, sorted by name."""
    return sorted((name, "#" + bytes(colour).hex()) for name, colour in zip(ADE20K_NAMES, ADE20K, strict=True))


def paint(classes: NDArray[np.integer], colours: Pixels) -> Pixels:
    """(H, W) class numbers to (H, W, 3)."""
    return np.ascontiguousarray(colours[classes])
