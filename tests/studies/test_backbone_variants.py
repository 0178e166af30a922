"""Settings of searches by the names of backbones: networks of torchvision, and files that describe one."""

from __future__ import annotations

import pytest

from moevoprune import InputError
from moevoprune.studies.backbone_variants import backbone_variants

COMMON = {"search.budget": 7}


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


def test_networks_and_files(file, tmp_path):
    described = file('[backbone]\nname = "resnet18"\nweights = "none"\nlayer = "layer3"\n')
    assert backbone_variants(f"vgg19, {described}", COMMON, "none", 64) == {
        "vgg19": {
            "search.budget": 7,
            "backbone.name": "vgg19",
            "backbone.weights": "none",
            "backbone.size": 64,
            "backbone.crop": 64,
        },
        # what is asked of networks does not touch files
        "mine": {
            "search.budget": 7,
            "backbone.name": "resnet18",
            "backbone.weights": "none",
            "backbone.layer": "layer3",
        },
    }
    assert backbone_variants("vgg19", COMMON)["vgg19"] == {
        "search.budget": 7,
        "backbone.name": "vgg19",
        "backbone.weights": "default",
    }


def test_weights_lie_beside_the_file_or_in_a_folder(file, tmp_path):
    text = '[backbone]\nname = "resnet18"\nweights = "mine.pth"\n'
    with pytest.raises(InputError, match="name the --weights-folder"):
        backbone_variants(file(text), COMMON)
    for folder in (tmp_path / "elsewhere", tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "mine.pth").touch()
        asked = None if folder == tmp_path else folder
        found = backbone_variants(file(text), COMMON, weights_folder=asked)
        assert found["mine"]["backbone.weights"] == str(folder / "mine.pth")


def test_bad_names(file):
    for names in ("", " , ", "vgg19,vgg19"):
        with pytest.raises(InputError, match="name at least one, and each once"):
            backbone_variants(names, COMMON)
    with pytest.raises(InputError, match=r"has no section \[backbone\]"):
        backbone_variants(file("[head]\nhidden = [8]\n"), COMMON)
    with pytest.raises(InputError, match="cannot be read"):
        backbone_variants("absent.toml", COMMON)
