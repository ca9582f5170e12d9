"""Control models that are offered for download: what to begin with, by control type and checkpoint.

The addresses are those of the hub's repositories. `sha256` is what is published of that very file, by the hub's page or
a list that names its address; it is checked when the file has come, and the hub's own record in any case. Sizes are
those of the hub's pages, as exact as these say them. The first that fits is the one that is recommended.
"""

from __future__ import annotations

from dataclasses import dataclass

SD1, SD2, SDXL = "SD 1.x", "SD 2.x", "SDXL"
SEE_CARD = "its own, see the model's card"


@dataclass(frozen=True, kw_only=True)
class OfferedModel:
    """A file of a hub repository, with the fields of a preprocessor's weights (core/preprocessors.py, WeightFile).

    control_types: for which it is offered. base: the checkpoints it controls, as `BaseModel.kind`. family: its kind in
    the field's words. size: bytes, about.
    """

    name: str
    control_types: tuple[str, ...]
    base: str
    size: int
    licence: str
    repo: str
    family: str = "ControlNet"
    path: str = ""
    sha256: str = ""
    folder: str = ""
    repo_type: str = "model"
    note: str = ""

    @property
    def label(self) -> str:
        """How it is named in the page."""
        return self.name

    @property
    def weights(self) -> tuple[OfferedModel, ...]:
        """Its files: itself."""
        return (self,)

    @property
    def source(self) -> str:
        """Its address."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.path or self.name}"

    @property
    def page(self) -> str:
        """Where its makers say what it is."""
        return f"https://huggingface.co/{self.repo}"


def _first(name: str, *control_types: str, sha256: str = "") -> OfferedModel:
    """Of ControlNet 1.1, halved to float16."""
    return OfferedModel(
        name=f"control_{name}_fp16.safetensors",
        control_types=control_types,
        base=SD1,
        size=722_601_100,
        licence="OpenRAIL",
        repo="comfyanonymous/ControlNet-v1-1_fp16_safetensors",
        sha256=sha256,
    )


def _second(kind: str, control_type: str, sha256: str = "") -> OfferedModel:
    """Thibaud's for SD 2.1."""
    return OfferedModel(
        name=f"control_v11p_sd21_{kind}.safetensors",
        control_types=(control_type,),
        base=SD2,
        size=728_494_536,
        licence=SEE_CARD,
        repo="thibaud/controlnet-sd21",
        sha256=sha256,
    )


def _adapter(kind: str, control_type: str) -> OfferedModel:
    """A T2I-Adapter for SDXL: a small network that runs once a pass."""
    return OfferedModel(
        name=f"t2i-adapter-{kind}-sdxl-1.0.fp16.safetensors",
        control_types=("T2I-Adapter", control_type),
        base=SDXL,
        size=158_100_000,
        licence="Apache-2.0",
        repo=f"TencentARC/t2i-adapter-{kind}-sdxl-1.0",
        family="T2I-Adapter",
        path="diffusion_pytorch_model.fp16.safetensors",
    )


def _prompt(name: str, base: str, size: int, sha256: str = "") -> OfferedModel:
    """An IP-Adapter: a picture as a prompt. Its CLIP network is the preprocessor's, which brings it by itself."""
    folder = "sdxl_models" if base == SDXL else "models"
    return OfferedModel(
        name=name,
        control_types=("IP-Adapter",),
        base=base,
        size=size,
        licence="Apache-2.0",
        repo="h94/IP-Adapter",
        family="IP-Adapter",
        path=f"{folder}/{name}",
        sha256=sha256,
    )


def _low_rank(kind: str, control_type: str, sha256: str = "") -> OfferedModel:
    """A Control-LoRA for SDXL: a fifth of a ControlNet, merged into the checkpoint's own weights."""
    return OfferedModel(
        name=f"control-lora-{kind}-rank128.safetensors",
        control_types=(control_type,),
        base=SDXL,
        size=395_700_000,
        licence=SEE_CARD,
        repo="stabilityai/control-lora",
        family="Control-LoRA",
        path=f"control-LoRAs-rank128/control-lora-{kind}-rank128.safetensors",
        sha256=sha256,
    )


UNION_TYPES = (
    "Canny",
    "Depth",
    "Inpaint",
    "Lineart",
    "MLSD",
    "NormalMap",
    "OpenPose",
    "Scribble",
    "Segmentation",
    "SoftEdge",
    "Tile",
)

MODELS = (
    _first("v11p_sd15_canny", "Canny", sha256="8932b66e15aae835b3490dbf989f56c253104cee08a88bf21283762f557c9f10"),
    _first("v11f1p_sd15_depth", "Depth", sha256="1c4a79aa52fb63f607cb9ff479ea5aa1923b6ceb21267bd14b69bd05d7b617be"),
    _first("v11p_sd15_inpaint", "Inpaint", sha256="677a4fe351edecd40cd0d7cc210a8686b59d4e55207317f12319ef746a7a5a89"),
    _first("v11e_sd15_ip2p", "InstructP2P"),
    _first("v11p_sd15_lineart", "Lineart", sha256="10559106d1bb8196298b7a81565ede9279295d2b2df15165b9dbe189994def56"),
    _first("v11p_sd15_mlsd", "MLSD"),
    _first("v11p_sd15_normalbae", "NormalMap"),
    _first("v11p_sd15_openpose", "OpenPose", sha256="4003c1da17b0e4ba444e02140e1c0d83bb24b79e4dcfd613c3a554d38f0f89c7"),
    _first("v11p_sd15_scribble", "Scribble"),
    _first("v11p_sd15_seg", "Segmentation"),
    _first("v11e_sd15_shuffle", "Shuffle"),
    _first("v11p_sd15_softedge", "SoftEdge", sha256="e78fea5b4599fec2ecd7e3f14b171feb290b88200c95d569ec0ff59a19bc3478"),
    _first("v11f1e_sd15_tile", "Tile", sha256="2f31868eedb243a77932e3c63907a6ba0a2058b6d65b5c27b89ee1b7f618ea33"),
    OfferedModel(
        name="controlnet-union-sdxl-promax.safetensors",
        control_types=UNION_TYPES,
        base=SDXL,
        size=2_513_342_408,
        licence="Apache-2.0",
        repo="xinsir/controlnet-union-sdxl-1.0",
        family="ControlNet Union",
        path="diffusion_pytorch_model_promax.safetensors",
        sha256="9fae2e50cb431bfcbe05822b59ec2228df545ef27f711dea8949e9f4ed9f7cdc",
    ),
    _prompt(
        "ip-adapter_sd15.safetensors",
        SD1,
        44_600_000,
        "289b45f16d043d0bf542e45831f971dcdaabe18b656f11e86d9dfba7e9ee3369",
    ),
    _prompt(
        "ip-adapter-plus_sd15.safetensors",
        SD1,
        98_183_288,
        "a1c250be40455cc61a43da1201ec3f1edaea71214865fb47f57927e06cbe4996",
    ),
    _prompt(
        "ip-adapter-plus-face_sd15.safetensors",
        SD1,
        98_183_288,
        "1c9edc21af6f737dc1d6e0e734190e976cfacf802d6b024b77aa3be922f7569b",
    ),
    _prompt(
        "ip-adapter_sdxl_vit-h.safetensors",
        SDXL,
        698_400_000,
        "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831",
    ),
    _prompt(
        "ip-adapter-plus_sdxl_vit-h.safetensors",
        SDXL,
        847_517_512,
        "3f5062b8400c94b7159665b21ba5c62acdcd7682262743d7f2aefedef00e6581",
    ),
    OfferedModel(
        name="t2iadapter_canny_sd15v2.pth",
        control_types=("T2I-Adapter", "Canny"),
        base=SD1,
        size=308_015_219,
        licence="Apache-2.0",
        repo="TencentARC/T2I-Adapter",
        family="T2I-Adapter",
        path="models/t2iadapter_canny_sd15v2.pth",
        sha256="a5ec162813b3997a925d39dc546ff696c42f877fec55ef2e6afa3a4aa642018e",
    ),
    _adapter("canny", "Canny"),
    _adapter("sketch", "Scribble"),
    _adapter("depth-midas", "Depth"),
    _low_rank("canny", "Canny", "56389dbb245ca44de91d662529bd4298abc55ce2318f60bc19454fb72ff68247"),
    _low_rank("depth", "Depth"),
    _low_rank("recolor", "Recolor"),
    _second("canny", "Canny", "7b2c5d972b6212bb9185e5860e66edd29eeeaeb98d43877688e20c156e196ce4"),
    _second("depth", "Depth"),
)


def recommended(control_type: str, base: str) -> OfferedModel | None:
    """What is offered for a type and a checkpoint's kind; None where nothing is known to fit."""
    return next((model for model in MODELS if control_type in model.control_types and model.base == base), None)


def named(name: str) -> OfferedModel | None:
    """The offered model of that file name."""
    return next((model for model in MODELS if model.name == name), None)
