import hashlib
import io
import json
import math
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from workers.build import resolve
from workers.costs import estimate
from workers.data import load
from workers.errors import ExtractorUnavailable, SpecMismatch
from workers.events import Artifact, Metrics
from workers.quality import BARE, NetworkFeatures, Shelf, efficientnet, inception, lacking, pictures
from workers.quality.weights import (
    EFFICIENTNET_LITE0,
    INCEPTION_FID,
    PinnedFile,
    efficientnet_file,
    read_weights,
)
from workers.spec import TrainSpec
from workers.train import train

SHAPES = {"a.weight": (2, 3), "b": (4,)}
NAME = "published.pth"


def published(weights: Any, path: Path) -> PinnedFile:
    torch.save(weights, path)
    content = path.read_bytes()
    return PinnedFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Kernels that keep the size of what they see, and normalisation that changes little."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        kernel = noise * math.sqrt(2 / math.prod(shape[1:]))
        weights[name] = kernel if len(shape) > 1 else 1 + 0.01 * noise
    return weights


def colour(count: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).float()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


# --- EfficientNet-Lite0 ----------------------------------------------------------------------


def test_efficientnet_computes_what_the_package_of_its_weights_does() -> None:
    weights = BARE.efficientnet(efficientnet.shapes())
    other: Any = EfficientNet.from_name("efficientnet-lite0")
    path = efficientnet_file()
    assert path is not None
    whole = torch.load(path, map_location="cpu", weights_only=True)
    other.load_state_dict(whole)
    other.eval()
    x = colour(3, 64)
    with torch.no_grad():
        h = other._swish(other._bn0(other._conv_stem((x - 127) / 128)))
        for number, block in enumerate(other._blocks, 1):
            h = block(h)
            if number in (5, 16):
                found = efficientnet.features(weights, x, number)
                torch.testing.assert_close(found, h.mean((2, 3)))
    assert found.shape == (3, 320)
    unused = {name for name in whole.keys() - weights.keys() if "num_batches" not in name}
    head = {"_conv_head.weight", *(f"_bn1.{part}" for part in ("weight", "bias"))}
    assert unused == {*head, "_bn1.running_mean", "_bn1.running_var", "_fc.weight", "_fc.bias"}


def test_small_pictures_are_enlarged_and_seen_with_eight_bits() -> None:
    rows = torch.tensor([[0.0, 0.5, 1.0, 1.4]])
    planes = pictures(rows, (2, 2))
    assert planes.shape == (1, 3, 2, 2)
    assert planes[0, 0].tolist() == [[0, 128], [255, 255]]
    assert torch.equal(planes[0, 0], planes[0, 2])
    assert torch.equal(pictures(planes[0, 0].reshape(1, 4).byte(), (2, 2)), planes)
    channels = pictures(torch.arange(12, dtype=torch.uint8)[None], (2, 2, 3))
    assert channels[0, 1].tolist() == [[1, 4], [7, 10]]
    weights = BARE.efficientnet(efficientnet.shapes())
    enlarged = nn.functional.interpolate(planes, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(
        efficientnet.features(weights, planes, 5), efficientnet.features(weights, enlarged, 5)
    )


# --- InceptionV3 -----------------------------------------------------------------------------


def test_inception_has_the_names_shapes_and_size_of_the_published_file() -> None:
    shapes = inception.shapes()
    convolutions = [name for name in shapes if name.endswith(".conv.weight")]
    assert len(convolutions) == 94
    known = {
        "Conv2d_1a_3x3": (32, 3, 3, 3),
        "Conv2d_4a_3x3": (192, 80, 3, 3),
        "Mixed_5b.branch_pool": (32, 192, 1, 1),
        "Mixed_5d.branch5x5_2": (64, 48, 5, 5),
        "Mixed_6a.branch3x3": (384, 288, 3, 3),
        "Mixed_6b.branch7x7dbl_5": (192, 128, 1, 7),
        "Mixed_6d.branch7x7_3": (192, 160, 7, 1),
        "Mixed_7a.branch7x7x3_4": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_1": (448, 1280, 1, 1),
        "Mixed_7b.branch3x3dbl_3a": (384, 384, 1, 3),
        "Mixed_7c.branch3x3_2b": (384, 384, 3, 1),
        "Mixed_7c.branch_pool": (192, 2048, 1, 1),
    }
    assert {name: shapes[f"{name}.conv.weight"] for name in known} == known
    for name in convolutions:
        prefix = name.removesuffix(".conv.weight")
        assert shapes[f"{prefix}.bn.running_var"] == shapes[name][:1]
    # The file has a last layer of 1008 classes besides; the rest of it is names, below 200 bytes
    # for each of its tensors.
    values = sum(math.prod(shape) for shape in shapes.values()) + inception.CLASSES * 2049
    assert 0 < INCEPTION_FID.size_bytes - 4 * values < 200 * (len(shapes) + 94 + 2)


def test_pictures_are_enlarged_as_tensorflow_1_did() -> None:
    ramp = torch.tensor([[0.0, 1.0]]).expand(1, 3, 2, 2)
    row = inception.enlarged(ramp)[0, 0, 0]
    i = torch.arange(299)
    # Output i is read at 2i/299, and beyond the last value's corner it is the last value.
    torch.testing.assert_close(row, (i * 2 / 299).clamp_max(1))
    same = colour(1, 299)
    assert torch.equal(inception.enlarged(same), same)


def test_inception_of_pinned_weights_sees_pictures(tmp_path: Path) -> None:
    weights = drawn(inception.shapes())
    pinned = published({**weights, "fc.bias": torch.zeros(1008)}, tmp_path / NAME)
    shelf = Shelf(fid_weights=str(tmp_path / NAME), inception=pinned)
    features = NetworkFeatures("inception_v3_fid", (8, 8), shelf, torch.device("cpu"))
    rows = torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(3)).byte()
    [found] = features.blocks(rows)
    assert (found.shape, found.dtype) == ((2, 2048), torch.float64)
    assert (features.name, features.version) == ("inception_v3_fid", 1)
    alone = inception.features(weights, pictures(rows[1:], (8, 8)))
    torch.testing.assert_close(found[1:], alone.double(), rtol=1e-4, atol=1e-6)
    assert not torch.equal(found[0], found[1])


def test_padding_is_left_out_of_averages_and_the_last_block_pools_by_the_maximum() -> None:
    ones = torch.ones(1, 2, 3, 3)
    assert torch.equal(inception._apply({}, (inception.Pool("average"),), ones), ones)
    last = inception._LAYERS[-1]
    assert isinstance(last, inception.Branches)
    assert last.paths[-1][0] == inception.Pool("maximum")


# --- weights ---------------------------------------------------------------------------------


def test_weights_are_fetched_once_and_only_as_pinned(tmp_path: Path, mirror: str) -> None:
    weights = drawn(SHAPES)
    pinned = published(weights, tmp_path / "mirror" / NAME)
    shelf = Shelf(fid_weights=f"{mirror}/{NAME}", cache_dir=tmp_path / "cache", inception=pinned)
    assert shelf.lacks_inception() is None
    found = shelf.inception_fid(SHAPES)
    assert found.keys() == SHAPES.keys()
    assert all(torch.equal(found[name], weights[name]) for name in SHAPES)
    (tmp_path / "mirror" / NAME).unlink()
    assert shelf.inception_fid(SHAPES).keys() == SHAPES.keys()
    other = shelf.model_copy(update={"cache_dir": tmp_path / "other"})
    with pytest.raises(ExtractorUnavailable, match="answered 404"):
        other.inception_fid(SHAPES)
    (tmp_path / "mirror" / NAME).write_bytes(bytes(pinned.size_bytes))
    with pytest.raises(ExtractorUnavailable, match="did not answer with the bytes of SHA-256"):
        other.inception_fid(SHAPES)
    with pytest.raises(ExtractorUnavailable, match="cannot be reached") as refused:
        Shelf(fid_weights=f"http://127.0.0.1:1/{NAME}", cache_dir=tmp_path).inception_fid(SHAPES)
    assert "127.0.0.1" not in str(refused.value)
    with pytest.raises(ExtractorUnavailable, match="cannot be written"):
        shelf.model_copy(update={"cache_dir": tmp_path / "cache" / "fid" / NAME}).inception_fid(
            SHAPES
        )


def test_weights_that_are_not_as_known_are_never_read(tmp_path: Path) -> None:
    path, marker = tmp_path / NAME, tmp_path / "was-run"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ExtractorUnavailable, match=r"for pt_inception.* is not used"):
        Shelf(fid_weights=str(path)).inception_fid(SHAPES)
    # Even a file that is as pinned makes tensors and nothing else.
    buffer = io.BytesIO()
    torch.save({"a.weight": Harmful()}, buffer)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    with pytest.raises(pickle.UnpicklingError):
        read_weights(path, PinnedFile(NAME, len(buffer.getvalue()), digest), SHAPES)
    assert not marker.exists()
    pinned = published({"a.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(ExtractorUnavailable, match=r"has no a.weight of shape \(2, 3\)"):
        read_weights(path, pinned, SHAPES)


def test_what_is_missing_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = spec_of("efficientnet_lite0_40", "inception_v3_fid").trainer.quality
    assert quality is not None
    [missing] = lacking(quality, BARE)
    assert missing.pointer == "/trainer/quality/features/1"
    assert "SPREADTRAIN_FID_WEIGHTS" in str(missing)
    [missing] = lacking(quality, Shelf(fid_weights=str(tmp_path / "gone")))
    assert "is no file" in str(missing)
    with pytest.raises(ExtractorUnavailable, match="is no file"):
        Shelf(fid_weights=str(tmp_path / "gone")).inception_fid(SHAPES)
    assert [*lacking(quality, Shelf(fid_weights="https://mirror.example/a.pth"))] == []
    monkeypatch.setattr("workers.quality.weights._PACKAGE", "no_such_package")
    [missing, _] = lacking(quality, BARE)
    assert missing.pointer == "/trainer/quality/features/0"
    assert "spreadtrain[features]" in str(missing)
    with pytest.raises(ExtractorUnavailable, match="is not installed"):
        next(train(spec_of("efficientnet_lite0_320"), load(spec_of().dataset, tmp_path)))


def test_the_package_ships_the_file_that_is_known() -> None:
    path = efficientnet_file()
    assert path is not None
    content = path.read_bytes()
    assert len(content) == EFFICIENTNET_LITE0.size_bytes
    assert hashlib.sha256(content).hexdigest() == EFFICIENTNET_LITE0.sha256


# --- in a run --------------------------------------------------------------------------------


def spec_of(*features: str) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [16], "latent_dim": 3},
                "epochs": 2,
                "batch_size": 256,
                "quality": {"samples": 120, "components": 4, "features": features},
            },
        }
    )


def test_a_run_measures_in_each_feature_space_and_says_which() -> None:
    spec = spec_of("efficientnet_lite0_40", "efficientnet_lite0_320", "efficientnet_lite0_40")
    events = [*train(spec, load(spec.dataset, Path("unused")))]
    [report] = [
        json.loads(event.content)["measures"]
        for event in events
        if isinstance(event, Artifact) and event.name.startswith("quality/")
    ]
    values = [event.values for event in events if isinstance(event, Metrics)][-1]
    for name in ("efficientnet_lite0_40", "efficientnet_lite0_320"):
        frechet = report[f"frechet_{name}"]
        assert (frechet["space"], frechet["version"]) == (name, 1)
        assert (frechet["samples"], frechet["reference"]) == (120, 120)
        assert "too large from 120 rows" in frechet["biased"]
        assert values[f"frechet_{name}"] == frechet["value"] > 0
        assert report[f"kid_{name}"]["standard_error"] >= 0
        assert report[f"kid_{name}"]["biased"] is None
        assert 0 <= report[f"coverage_{name}"]["value"] <= 1
    assert report["frechet_pca"]["space"] == "pixel-pca-4"
    assert report["frechet_pca"]["biased"] != report["frechet_efficientnet_lite0_40"]["biased"]


def test_networks_need_pictures_and_memory() -> None:
    bare, with_network = spec_of(), spec_of("inception_v3_fid")
    info = load(bare.dataset, Path("unused")).info
    needed = [estimate(resolve(s, info), info).worker_memory_bytes for s in (bare, with_network)]
    assert needed[1] - needed[0] > INCEPTION_FID.size_bytes
    line = TrainSpec.model_validate(
        {**with_network.model_dump(), "dataset": {"kind": "line", "samples": 1000}}
    )
    with pytest.raises(SpecMismatch, match="pictures") as caught:
        resolve(line, load(line.dataset, Path("unused")).info)
    assert caught.value.pointer == "/trainer/quality/features"
