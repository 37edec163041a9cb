"""One scene in every file format of cameras, phones and programs: the model sees the same pixels."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from aes_r1.data.sample import PictureError, open_picture
from aes_r1.data.srgb import ADOBE_RGB, as_rgb, eight_bits, icc_profile
from aes_r1.data.stated_space import code_points
from tests.data.cameras import chunk, dng, jpeg, plain, png, tiff

# Red, green and blue at the D50 white, as the profiles of these names hold them.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def srgb_light(samples: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: linear light of samples in [0, 1]."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def srgb_samples(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.clip(light, 0, None) ** (1 / 2.4) - 0.055)


CURVES = {
    "srgb": (srgb_light, srgb_samples),
    "adobe": (lambda samples: samples ** (563 / 256), lambda light: np.clip(light, 0, None) ** (256 / 563)),
    "linear": (lambda samples: samples, lambda light: light),
}
SPACES = {"Display P3": (DISPLAY_P3, "srgb"), "Adobe RGB": (ADOBE_RGB, "adobe"), "linear": (SRGB, "linear")}


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """[60, 80, 3] bytes: smooth blobs of many colors, none of them at an end of the scale."""
    small = np.random.default_rng(0).integers(20, 236, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 60), Image.Resampling.BILINEAR))


def in_space(scene: np.ndarray, name: str) -> tuple[Image.Image, bytes]:
    """(the scene coded in another space, that space's profile), by colorimetry written out here."""
    colorants, curve = SPACES[name]
    light, samples = CURVES[curve]
    xyz = srgb_light(scene / 255) @ np.array(SRGB)
    coded = samples(np.clip(xyz @ np.linalg.inv(np.array(colorants)), 0, 1))
    profile = icc_profile(colorants, light(np.linspace(0, 1, 1024)).tolist())
    return Image.fromarray((coded * 255).round().astype(np.uint8)), profile


def saved(picture: Image.Image, kind: str, **options) -> io.BytesIO:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream


def shown(stream: io.BytesIO | bytes) -> np.ndarray:
    opened = open_picture(io.BytesIO(stream) if isinstance(stream, bytes) else stream)
    assert opened.mode == "RGB"
    return np.asarray(opened).astype(int)


def off(found: np.ndarray, scene: np.ndarray) -> float:
    return float(np.abs(found - scene.astype(int)).max())


@pytest.mark.parametrize(
    ("space", "kind"),
    [(space, kind) for space in SPACES for kind in ("PNG", "TIFF", "WEBP", "JPEG", "AVIF")][: 5 + 5 + 3],
)
def test_a_copy_in_another_color_space_is_the_same_picture(space, kind, scene):
    coded, profile = in_space(scene, space)
    assert off(np.asarray(coded), scene) > 10, "as bytes it is another picture"
    fine = {"quality": 100, "subsampling": "4:4:4"}
    lossless = {"WEBP": {"lossless": True}, "JPEG": fine, "AVIF": fine}.get(kind, {})
    result = shown(saved(coded, kind, icc_profile=profile, **lossless))
    # Eight bits of linear light are coarse in the shadows, where a step is several steps of sRGB.
    allowed = {"PNG": 2, "TIFF": 2, "WEBP": 2}.get(kind, 16) + (12 if space == "linear" else 0)
    assert off(result, scene) <= allowed
    assert np.abs(result - scene).mean() < 2.5


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB"])
@pytest.mark.slow
def test_a_phone_s_picture_in_another_color_space_is_the_same_picture(space, scene):
    """HEIC holds the profile itself, or names the space by numbers, as another test has it."""
    heif = pytest.importorskip("pillow_heif")
    coded, profile = in_space(scene, space)
    stream = io.BytesIO()
    heif.from_pillow(coded).save(stream, quality=-1, chroma=444, icc_profile=profile)
    result = shown(stream)
    assert np.abs(np.asarray(coded).astype(int) - scene).mean() > 2.5, "as bytes it is another picture"
    assert np.abs(result - scene).mean() < 1.5


def test_transparency_and_palette_have_colors_of_the_profile_too(scene):
    coded, profile = in_space(scene, "Adobe RGB")
    clear = coded.copy()
    clear.putalpha(255)
    assert off(shown(saved(clear, "PNG", icc_profile=profile)), scene) <= 2
    few = coded.quantize(64)
    plainly = as_rgb(few.convert("RGB"))
    assert np.abs(shown(saved(few, "PNG", icc_profile=profile)) - np.asarray(plainly)).max() > 5
    clear.putalpha(0)
    assert (shown(saved(clear, "PNG", icc_profile=profile)) == 255).all()


def test_gray_with_a_profile_of_its_own(scene):
    gray = Image.fromarray(scene).convert("L")
    light = [(index / 1023) for index in range(1024)]
    linear = (srgb_light(np.asarray(gray) / 255) * 255).round().astype(np.uint8)
    for form in (Image.fromarray(linear), Image.merge("LA", [Image.fromarray(linear), Image.new("L", gray.size, 255)])):
        result = shown(saved(form, "PNG", icc_profile=icc_profile((), light)))
        assert np.abs(result[..., 0] - np.asarray(gray)).mean() < 1
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile(SRGB, light)))  # of colors: does not fit, is passed over
    assert off(shown(saved(gray, "PNG", icc_profile=profile.tobytes()))[..., 0], np.asarray(gray)) == 0


def test_a_camera_s_adobe_rgb_without_a_profile(scene):
    coded, _ = in_space(scene, "Adobe RGB")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    stream = io.BytesIO(jpeg(coded, exif=exif, subsampling=0))
    assert off(shown(stream), scene) <= 14
    assert np.abs(shown(stream) - scene).mean() < 2.5
    assert np.abs(shown(jpeg(coded, subsampling=0)) - scene).mean() > 4, "without the mark it is taken as sRGB"


def test_srgb_and_broken_profiles_change_nothing(scene):
    picture = Image.fromarray(scene)
    named = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    own = icc_profile(SRGB, srgb_light(np.linspace(0, 1, 1024)).tolist())
    for profile in (named, own, b"", b"no profile", own[:200], bytes(3000)):
        assert off(shown(saved(picture, "PNG", icc_profile=profile)), scene) == 0


def with_chunks(stream: io.BytesIO, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks behind its header."""
    content = stream.getvalue()
    return content[:33] + b"".join(chunk(name, body) for name, body in chunks) + content[33:]


def chromaticities(*values: float) -> bytes:
    return struct.pack(">8I", *(round(100_000 * value) for value in values))


ADOBE = chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
GAMMA = (b"gAMA", struct.pack(">I", 45455))
LINEAR = (b"gAMA", struct.pack(">I", 100_000))


@pytest.mark.parametrize(
    ("space", "chunks"),
    [
        ("Display P3", [(b"cICP", bytes([12, 13, 0, 1]))]),
        ("Display P3", [(b"cICP", bytes([12, 13, 0, 1])), LINEAR]),
        ("linear", [(b"cICP", bytes([1, 8, 0, 1]))]),
        ("linear", [LINEAR]),
        ("Adobe RGB", [(b"gAMA", struct.pack(">I", 45470)), (b"cHRM", ADOBE)]),
    ],
)
def test_a_png_that_states_its_space_without_a_profile_is_the_same_picture(space, chunks, scene):
    coded, _ = in_space(scene, space)
    result = shown(with_chunks(saved(coded, "PNG"), *chunks))
    allowed = {"linear": 12, "Adobe RGB": 12}.get(space, 2)  # Adobe's exponent is near sRGB's curve, and read as it
    assert off(result, scene) <= allowed
    assert np.abs(result - scene).mean() < 2.5 < np.abs(np.asarray(coded).astype(int) - scene).mean()


@pytest.mark.parametrize(
    "chunks",
    [
        [GAMMA],
        [GAMMA, (b"cHRM", chromaticities(0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06))],
        [(b"sRGB", b"\0"), LINEAR],
        [(b"cICP", bytes([1, 13, 0, 1])), LINEAR],
        [(b"gAMA", bytes(4))],
        [(b"gAMA", b"\xff\xff\xff\xff")],
        [(b"cHRM", bytes(32))],
        [(b"cHRM", chromaticities(*[0.3] * 8))],
        [(b"cICP", b"\x0c")],
    ],
)
def test_a_png_in_srgb_and_statements_that_mean_nothing_change_nothing(chunks, scene):
    assert off(shown(with_chunks(saved(Image.fromarray(scene), "PNG"), *chunks)), scene) <= 1


def test_a_stated_space_holds_for_gray_palette_transparency_and_sixteen_bits(scene):
    gray = np.asarray(Image.fromarray(scene).convert("L"))
    light = (srgb_light(gray / 255) * 255).round().astype(np.uint8)
    result = shown(with_chunks(saved(Image.fromarray(light), "PNG"), LINEAR))
    assert np.abs(result[..., 0] - gray.astype(int)).mean() < 1
    coded, _ = in_space(scene, "Display P3")
    clear = coded.copy()
    clear.putalpha(255)
    deep = np.asarray(coded).astype(np.uint16) * 257
    mark = (b"cICP", bytes([12, 13, 0, 1]))
    assert off(shown(with_chunks(saved(clear, "PNG"), mark)), scene) <= 2
    assert off(shown(with_chunks(io.BytesIO(png(deep)), mark)), scene) <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes([12, 13, 0, 1]))],
        [
            (b"gAMA", struct.pack(">I", 45455)),
            (b"cHRM", chromaticities(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
        ],
    ],
)
def test_a_space_that_is_stated_beside_a_profile_that_cannot_be_used_holds(chunks, scene):
    coded, profile = in_space(scene, "Display P3")
    gray = icc_profile((), [index / 1023 for index in range(1024)])
    for broken in (b"no profile", profile[:200], bytes(3000), gray):
        png_with_both = with_chunks(saved(coded, "PNG", icc_profile=broken), *chunks)
        assert off(shown(png_with_both), scene) <= 2
    other = with_chunks(saved(Image.fromarray(scene), "PNG", icc_profile=in_space(scene, "Adobe RGB")[1]), *chunks)
    assert off(shown(other), scene) > 10, "a good profile decides"


def test_a_camera_s_adobe_rgb_holds_beside_a_profile_that_cannot_be_used(scene):
    coded, _ = in_space(scene, "Adobe RGB")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03", 2: b"0100"}
    assert np.abs(shown(jpeg(coded, exif=exif, subsampling=0, icc_profile=b"no profile")) - scene).mean() < 2.5


def test_a_png_of_narrow_range_is_refused(scene):
    narrow = with_chunks(saved(Image.fromarray(scene), "PNG"), (b"cICP", bytes([1, 13, 0, 0])))
    with pytest.raises(
        PictureError, match=r"narrow range \(cICP\), whose black is not 0; export it as an ordinary PNG"
    ):
        open_picture(io.BytesIO(narrow))


def bmp(picture: Image.Image, space: bytes, *, profile: bytes = b"", numbers=(0,) * 12, version: int = 5) -> bytes:
    """A BMP of version 4 or 5. numbers: XYZ of red, green and blue, and three exponents, as they stand in the file."""
    plainly = saved(picture, "BMP").getvalue()
    (offset,) = struct.unpack_from("<I", plainly, 10)
    size = 124 if version == 5 else 108
    palette, pixels = plainly[54:offset], plainly[offset:]
    head = struct.pack("<I", size) + plainly[18:54] + bytes(16) + space + struct.pack("<12I", *numbers)
    if version == 5:
        head += struct.pack("<4I", 4, size + len(palette) + len(pixels), len(profile), 0)
    start = 14 + size + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels) + len(profile), 0, 0, start)
        + head
        + palette
        + pixels
        + profile
    )


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB"])
def test_a_bmp_with_a_profile_of_its_own_is_the_same_picture(space, scene):
    coded, profile = in_space(scene, space)
    assert off(shown(bmp(coded, b"DEBM", profile=profile)), scene) <= 2
    few = coded.quantize(64)
    expected = shown(saved(few.convert("RGB"), "PNG", icc_profile=profile))
    assert off(shown(bmp(few, b"DEBM", profile=profile)), expected) == 0
    for useless in (b"", b"no profile", profile[:200]):
        assert off(shown(bmp(coded, b"DEBM", profile=useless)), np.asarray(coded)) == 0


def test_a_bmp_whose_profile_is_another_file_is_refused(scene):
    linked = bmp(Image.fromarray(scene), b"KNIL", profile=b"C:\\profiles\\mine.icc\0")
    with pytest.raises(
        PictureError, match="whose color profile is another file; convert it to sRGB and save it as PNG"
    ):
        open_picture(io.BytesIO(linked))


@pytest.mark.parametrize("version", [4, 5])
def test_a_bmp_of_calibrated_colors_is_the_same_picture(version, scene):
    primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))  # of Adobe RGB, as XYZ of D65 white and as x, y, z
    xyz = ((0.57667, 0.29734, 0.02703), (0.18556, 0.62736, 0.07069), (0.18823, 0.07529, 0.99134))
    coded, _ = in_space(scene, "Adobe RGB")
    exponent = round(563 / 256 * 65536)
    for ends in (xyz, [(x, y, 1 - x - y) for x, y in primaries]):
        numbers = [round(value * 2**30) for end in ends for value in end]
        result = shown(bmp(coded, bytes(4), numbers=(*numbers, exponent, exponent, exponent), version=version))
        assert off(result, scene) <= 3
    assert off(shown(bmp(coded, bytes(4), version=version)), np.asarray(coded)) == 0, "nothing is stated"
    assert off(shown(bmp(coded, b"BGRs", numbers=(*numbers, 0, 0, 0), version=version)), np.asarray(coded)) == 0


def gif(picture: Image.Image, profile: bytes) -> bytes:
    content = saved(picture, "GIF").getvalue()
    start = 13 + 3 * 2 ** ((content[10] & 7) + 1) * (content[10] >> 7)
    parts = [profile[at : at + 255] for at in range(0, len(profile), 255)]
    body = b"".join(bytes([len(part)]) + part for part in parts)
    comment = b"\x21\xfe\x03abc\0"
    return content[:start] + comment + b"\x21\xff\x0bICCRGBG1012" + body + b"\0" + content[start:]


def test_a_gif_with_a_profile_is_the_same_picture(scene):
    coded, profile = in_space(scene, "Adobe RGB")
    few = coded.quantize(64)
    expected = shown(saved(few.convert("RGB"), "PNG", icc_profile=profile))
    result = shown(gif(few, profile))
    assert off(result, expected) == 0
    assert off(result, np.asarray(few.convert("RGB"))) > 10
    for cut in (profile[:200], b"no profile"):
        assert off(shown(gif(few, cut)), np.asarray(few.convert("RGB"))) == 0


def test_the_profile_of_a_palette_of_grays_is_one_of_colors():
    """Pillow opens such a GIF or BMP as gray, to which a profile of colors would not fit."""
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    linear = icc_profile(SRGB, [index / 1023 for index in range(1024)])
    expected = shown(saved(gray.convert("RGB"), "PNG", icc_profile=linear))
    assert off(expected, np.asarray(gray.convert("RGB"))) > 10
    for content in (gif(gray, linear), bmp(gray, b"DEBM", profile=linear)):
        assert Image.open(io.BytesIO(content)).mode == "L"
        assert off(shown(content), expected) == 0


def test_a_cut_gif_or_bmp_ends_in_a_line_or_a_picture(scene):
    coded, profile = in_space(scene, "Adobe RGB")
    for whole in (gif(coded.quantize(64), profile), bmp(coded, b"DEBM", profile=profile)):
        for length in (*range(0, 160), *range(160, len(whole), 997)):
            with suppress(PictureError):  # any other error would be a traceback
                shown(whole[:length])


def restated(picture: Image.Image, kind: str, primaries: int, transfer: int) -> bytes:
    """An AVIF or HEIC without a profile, whose nclx box states other code points."""
    content = bytearray(saved(picture, kind, quality=100, subsampling="4:4:4").getvalue())
    place = content.index(b"colrnclx") + 8
    struct.pack_into(">2H", content, place, primaries, transfer)
    return bytes(content)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.slow
def test_an_avif_or_heic_that_states_its_space_without_a_profile_is_the_same_picture(kind, scene):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    coded, _ = in_space(scene, "Display P3")
    assert np.abs(shown(restated(coded, kind, 12, 13)) - scene).mean() < 2.5
    assert np.abs(shown(restated(coded, kind, 1, 13)) - scene).mean() > 2.5
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(PictureError, match=rf"an HDR picture \({name}\).*; export it as an ordinary JPEG"):
            open_picture(io.BytesIO(restated(coded, kind, 9, transfer)))


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + name + body


def colored(*points: tuple[int, int], primary: int) -> io.BytesIO:
    """The description of a file of several pictures, numbered from 1, each with its own code points."""
    colors = [box(b"colr", b"nclx", struct.pack(">3HB", *one, 6, 128)) for one in points]
    of = b"".join(struct.pack(">HBB", item, 1, 0x80 | item) for item in range(1, len(points) + 1))
    table = box(b"ipma", bytes(4), struct.pack(">I", len(points)), of)
    properties = box(b"iprp", box(b"ipco", *colors), table)
    meta = box(b"meta", bytes(4), box(b"pitm", bytes(4), struct.pack(">H", primary)), properties)
    return io.BytesIO(box(b"ftyp", b"avif", bytes(4)) + meta)


def test_the_space_is_that_of_the_primary_picture_and_not_of_a_gain_map():
    assert code_points(colored((1, 13), (9, 16), primary=1)) == (1, 13)
    assert code_points(colored((1, 13), (9, 16), primary=2)) == (9, 16)
    whole = colored((12, 13), (9, 16), primary=1).getvalue()
    for length in range(len(whole)):
        assert code_points(io.BytesIO(whole[:length])) in (None, (12, 13), (0, 0))
    assert code_points(colored((1, 13), primary=7)) is None


def test_a_fourth_channel_of_zeros_that_is_no_transparency(scene):
    height, width = scene.shape[:2]
    samples = np.dstack([scene[..., ::-1], np.zeros((height, width), np.uint8)])[::-1].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(samples), 2835, 2835, 0, 0) + masks
    head += b"BGRs" + bytes(48)
    bmp = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(samples), 0, 0, 14 + len(head)) + head + samples
    assert off(shown(bmp), scene) == 0
    four = np.dstack([scene, np.zeros((height, width), np.uint8)]).tobytes()
    tags = plain((width, height), "pixels", len(four))
    tags |= {258: ("H", [8] * 4), 277: ("H", [4])}
    assert off(shown(tiff([tags], {"pixels": four})), scene) == 0
    assert (shown(tiff([{**tags, 338: ("H", [2])}], {"pixels": four})) == 255).all(), "declared transparent"


def test_one_gray_value_of_sixteen_bits_that_is_transparent():
    samples = np.full((64, 64, 1), 200 * 257, np.uint16)
    samples[:32] = 80 * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 0, 0, 0, 0)), (b"tRNS", struct.pack(">H", 80 * 257))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    result = shown(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts))
    assert (result[:32] == 255).all()
    assert (result[32:] == 200).all()


@pytest.mark.parametrize("order", "<>")
def test_signed_samples_of_sixteen_bits_have_fifteen_bits_of_brightness(order):
    gray = np.tile(np.linspace(0, 255, 80).round().astype(np.uint8), (60, 1))
    signed = (gray.astype(np.int32) * 32767 // 255).astype(f"{order}i2").tobytes()
    tags = plain((80, 60), "pixels", len(signed))
    tags |= {258: ("H", [16]), 262: ("H", [1]), 277: ("H", [1]), 339: ("H", [2])}
    assert off(shown(tiff([tags], {"pixels": signed}, order=order))[..., 0], gray) <= 1


def test_lab_and_cmyk_with_a_profile(scene):
    picture, srgb = Image.fromarray(scene), ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(picture, srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    assert np.abs(shown(saved(lab, "TIFF")) - scene).mean() < 1  # eight bits of Lab are coarse
    assert off(shown(saved(picture.convert("CMYK"), "TIFF")), scene) <= 2


# ---------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_gray_of_any_depth_in_sixteen_bits_is_as_bright(bits, kind, scene):
    gray = np.asarray(Image.fromarray(scene).convert("L"))
    samples = np.round(gray / 255 * (2**bits - 1)).astype(np.uint16)
    samples[0, 0], gray = 2**bits - 1, np.where(np.arange(gray.size).reshape(gray.shape) == 0, 255, gray)
    result = shown(saved(Image.fromarray(samples), kind))
    assert off(result, gray[..., None].repeat(3, -1)) <= 1


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("bands", [3, 4])
def test_colors_of_any_depth_in_sixteen_bits_are_as_bright(bits, bands, scene):
    samples = np.round(scene / 255 * (2**bits - 1)).astype(int)
    expected = scene.copy()
    samples[0, 0], expected[0, 0] = 2**bits - 1, 255
    if bands == 4:
        samples = np.concatenate([samples, np.full((60, 80, 1), 65535)], -1)
    assert off(shown(png(samples)), expected) <= 1


@pytest.mark.parametrize("bits", [12, 16])
def test_gray_beside_transparency(bits, scene):
    gray = np.asarray(Image.fromarray(scene).convert("L"))[1:]
    samples = np.stack([np.round(gray / 255 * (2**bits - 1)).astype(int), np.full(gray.shape, 65535)], -1)
    samples[0, 0, 0] = 2**bits - 1
    result = shown(png(samples))
    assert off(result[1:], gray[1:, :, None].repeat(3, -1)) <= 1
    samples[5, 5, 1] = 0
    assert shown(png(samples))[5, 5].tolist() == [255, 255, 255]


def test_whole_samples_of_32_bits_have_no_sign():
    samples = np.linspace(0, 2**32 - 1, 64).reshape(8, 8).astype("<u4")
    tags = plain((8, 8), "samples", samples.nbytes)
    tags |= {258: ("H", [32]), 262: ("H", [1]), 277: ("H", [1]), 339: ("H", [1])}
    result = shown(tiff([tags], {"samples": samples.tobytes()}))[..., 0]
    assert off(result, np.linspace(0, 255, 64).reshape(8, 8)) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_colors_of_twelve_bits_in_a_tiff(order, scene):
    samples = np.round(scene / 255 * 4095).astype(f"{order}u2")
    samples[0, 0] = 4095
    tags = plain((80, 60), "samples", samples.nbytes)
    tags[258] = ("H", [16, 16, 16])
    packed = zlib.compress(samples.tobytes())
    deflated = {**tags, 259: ("H", [8]), 279: ("I", [len(packed)])}
    for folder, content in ((tags, samples.tobytes()), (deflated, packed)):
        result = shown(tiff([folder], {"samples": content}, order=order))
        assert off(result[1:], scene[1:]) <= 1


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colors_in_separate_planes_are_read_or_refused(order, bits, compressed, scene):
    """Pillow takes uncompressed planes of 16 bits for planes of 8, and finds no low bytes in compressed ones."""
    kind = "u1" if bits == 8 else f"{order}u2"
    samples = np.round(scene / 255 * (2**bits - 1)).astype(kind).transpose(2, 0, 1)
    planes = [plane.tobytes() for plane in samples]
    parts = dict(zip("rgb", map(zlib.compress, planes) if compressed else planes, strict=True))
    tags = plain((80, 60), "r", 0) | {258: ("H", [8 if bits == 8 else 16] * 3), 284: ("H", [2])}
    tags |= {259: ("H", [8 if compressed else 1]), 279: ("I", [len(part) for part in parts.values()])}
    content = tiff([{**tags, 273: ("I", list(parts))}], parts, order=order)
    if bits == 8 or (bits == 16 and compressed):
        assert off(shown(content), scene) <= 1
        return
    with pytest.raises(PictureError, match="16-bit colors in separate planes; save it with interleaved colors"):
        shown(content)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.5), (0, 7.5), (-1, 1)], ids=["unit", "dim", "above one", "around zero"]
)
def test_floating_samples_are_shown_by_their_range(low, high, scene):
    gray = np.asarray(Image.fromarray(scene).convert("L")) / 255
    gray[0, :2] = 0, 1
    samples = (low + (high - low) * gray).astype(np.float32)
    result = shown(saved(Image.fromarray(samples), "TIFF"))[..., 0]
    # A unit range stays as dark as it is; any other goes from black to white.
    assert np.abs(result - gray * (127.5 if high == 0.5 else 255)).max() <= 1


def test_whole_floating_samples_of_eight_bits(scene):
    gray = np.asarray(Image.fromarray(scene).convert("L"))
    assert off(shown(saved(Image.fromarray(gray.astype(np.float32)), "TIFF"))[..., 0], gray) == 0


def test_samples_that_are_no_numbers():
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert eight_bits(np.concatenate([signalling, np.array([0, 1], np.float32)])).tolist() == [0, 0, 255]
    samples = np.array([[0, 1], [np.nan, np.inf]], np.float32).repeat(2, 0)
    assert shown(saved(Image.fromarray(samples), "TIFF"))[:, :, 0].tolist()[2] == [0, 255]
    with pytest.raises(PictureError, match="no sample is a finite number"):
        shown(saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_sixteen_bits_that_count_down_from_white():
    samples = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    tags = plain((8, 8), "samples", samples.nbytes)
    tags |= {258: ("H", [16]), 262: ("H", [0]), 277: ("H", [1])}
    result = shown(tiff([tags], {"samples": samples.astype("<u2").tobytes()}))[..., 0]
    assert off(result, (65535 - samples.astype(int)) // 257) <= 1


# ---------------------------------------------------------------------------------------------- pages and previews


def test_a_tiff_gives_its_first_whole_page():
    size, blank = (16, 12), bytes(16 * 12 * 3)
    red = np.full((12, 16, 3), (255, 0, 0), np.uint8).tobytes()
    reduced = plain(size, "blank", len(blank), t254=("I", [1]))
    mask = plain(size, "blank", len(blank), t254=("I", [4]))
    old = plain(size, "blank", len(blank), t255=("H", [2]))
    whole = plain(size, "red", len(red))
    contents = {"blank": blank, "red": red}
    for folders in ([reduced, whole], [mask, old, whole], [whole, reduced], [whole, whole]):
        assert (shown(tiff(list(folders), contents)) == (255, 0, 0)).all()
    assert (shown(tiff([reduced, reduced], contents)) == 0).all(), "reduced copies alone: the first"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_raw_file_gives_its_preview_and_not_its_thumbnail(order, orientation, scene):
    preview = Image.fromarray(scene).resize((400, 300))
    opened = open_picture(io.BytesIO(dng(preview, raw=(600, 400), orientation=orientation, order=order)))
    assert opened.size == ((400, 300) if orientation == 1 else (300, 400))
    upright = opened if orientation == 1 else opened.transpose(Image.Transpose.ROTATE_90)
    assert np.abs(np.asarray(upright).astype(int) - np.asarray(preview)).mean() < 4


@pytest.mark.parametrize("preview", [None, Image.new("RGB", (160, 120))], ids=["none", "thumbnail"])
def test_a_raw_file_without_a_useful_preview_is_refused(preview):
    with pytest.raises(PictureError, match="without a preview of a useful size; export it as JPEG"):
        open_picture(io.BytesIO(dng(preview, raw=(6000, 4000))))
