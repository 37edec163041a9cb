"""Small data sets in the exact layouts and bytes of the published ones."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

BOM = b"\xef\xbb\xbf"


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def draw(root: Path, *names: str) -> None:
    """Write a different picture for every name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shade = sum(name.encode()) % 200
        picture = Image.effect_noise((40, 30), 20 + shade).convert("RGB")
        with (root / name).open("wb") as file:
            picture.save(file, "PNG")


def ava(root: Path) -> None:
    # the first line is the published file's own
    rows = b"1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396\n2 953958 10 7 15 26 26 21 10 8 1 2 1 21 1396 \n"
    put(root, "AVA.txt", rows + b"3 954184 0 0 0 0 0 0 0 0 0 4 0 0 1396\n4 277832 0 0 0 0 0 0 0 0 0 0 0 0 1")
    put(root, "aesthetics_image_lists/generic_test.jpgl", b"953958\n 310261\n277832")
    draw(root, "images/953619.jpg", "images/953958.jpg", "images/954184.jpg", "images/277832.jpg")


def tad66k(root: Path) -> None:
    put(root, "merge/train.csv", b"image,score\r\nhs_yin@152947873.jpg,1.9\r\n12@N00 3.jpg,10\r\n")
    put(root, "merge/test.csv", BOM + b"image,score\r\nthoseunspokenwords5988966769.jpg,3.0")
    put(root, "unmerge/train/sky.csv", b"image,score\r\nthoseunspokenwords5988966769.jpg,3.0\r\n")
    draw(root, "TAD66K/hs_yin@152947873.jpg", "TAD66K/12@N00 3.jpg", "TAD66K/thoseunspokenwords5988966769.jpg")


def flickr_aes(root: Path) -> None:
    put(
        root, "FLICKR-AES_image_score.txt", b" farm1_27_1.jpg 0.2\r\nfarm1_27_2.jpg 1\r\n farm1_27_3.jpg 0.627154296566"
    )
    workers = b" worker, imagePair, score\r\nA1, farm1_27_1.jpg,1\r\nA2,farm1_27_1.jpg,3\r\nA1,farm1_27_2.jpg,5\r\n"
    put(root, " FLICKR-AES_image_labeled_by_each_worker.csv", workers)
    draw(root, "40K/farm1_27_1.jpg", "40K/farm1_27_2.jpg", "40K/farm1_27_3.jpg")


def para(root: Path) -> None:
    head = "imageName,sessionId,semantic," + ",".join(f"aestheticScore_{k / 2}" for k in range(2, 11))
    head += ",aestheticScore_mean,aestheticScore_std,qualityScore_mean,compositionScore_mean,lightScore_mean\r\n"
    for name, mean in (("Train", 4.2), ("Test", 1.0)):
        row = (
            f"iaa_{name}.jpg,session3,plant,0,0,1,0,0,0,4,0,0,{mean},0.8,3.1,{mean - 0.2 if mean > 1 else 1.0},5.0\r\n"
        )
        put(root, f"annotation/PARA-Giaa{name}.csv", (head + row).encode())
    put(root, "annotation/PARA_images_mean_score_greaterorequalthan_3_outier_removed.csv", b"imageName,mean\r\nx,5\r\n")
    draw(root, "imgs/session3/iaa_Train.jpg", "imgs/session3/iaa_Test.jpg")


def aadb(root: Path) -> None:
    lists = "imgListFiles_label/imgList{}Regression_score.txt"
    put(root, lists.format("Train"), b"farm1_a_b.jpg 0.3\nfarm1_c d.jpg 0.7 \n")
    put(root, lists.format("Validation"), b"farm1_v.jpg 0.25\r\nfarm1_t.jpg 0.65\r\n")
    put(root, lists.format("TestNew"), b"farm1_t.jpg 0.65\nfarm1_u.jpg 1")
    rated = lists.replace("score", "ColorHarmony")
    put(root, rated.format("Train"), b"farm1_a_b.jpg -0.5\nfarm1_c d.jpg 1 \n")
    put(root, rated.format("Validation"), b"farm1_v.jpg 0\r\nfarm1_t.jpg 0.5\r\n")
    put(root, rated.format("TestNew"), b"farm1_t.jpg 0.5\nfarm1_u.jpg -1")
    draw(root, *(f"datasetImages_originalSize/farm1_{name}.jpg" for name in ("a_b", "c d", "v", "t")))
    draw(root, "AADB_newtest_originalSize/farm1_t.jpg", "AADB_newtest_originalSize/farm1_u.jpg")


def koniq(root: Path) -> None:
    rows = b"""image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set
10004473376.jpg,0.0,0.0,0.238095238095,0.695238095238,0.0666666666667,105,77.3836206897,0.527277894494,training
10007357496.jpg,0.0,0.03125,0.46875,0.489583333333,0.0104166666667,96,68.7285714286,0.580003024795,test
10007903636.jpg,1.0,0.0,0.0,0.0,0.0,96,3.9,0.0,validation
"""
    put(root, "koniq10k_distributions_sets.csv", rows)
    draw(root, *(f"1024x768/{name}.jpg" for name in (10004473376, 10007357496, 10007903636)))


def spaq(root: Path) -> None:
    """A minimal workbook, written as the parts that the format consists of."""
    rows = [["Image name", "MOS", "Brightness"], *([f"{i:05d}.jpg", 12.5 * i, 50] for i in range(1, 9))]
    cells = "".join("<row>" + "".join(map(_cell, row)) + "</row>" for row in rows)
    space = "http://schemas.openxmlformats.org"
    sheet, office = f"{space}/spreadsheetml/2006/main", f"{space}/officeDocument/2006/relationships"
    kinds, package = f"{space}/package/2006/content-types", f"{space}/package/2006/relationships"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    content = {
        "[Content_Types].xml": f'<Types xmlns="{kinds}"><Default Extension="rels" ContentType="application/vnd.openxml'
        'formats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType='
        f'"{kind}.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/>'
        "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{sheet}" xmlns:r="{office}"><sheets><sheet name="Sheet1" sheetId="1" '
        'r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{sheet}"><sheetData>{cells}</sheetData></worksheet>',
    }
    (root / "Annotations").mkdir(parents=True)
    with zipfile.ZipFile(root / "Annotations" / "MOS and Image attribute scores.xlsx", "w") as book:
        for name, text in content.items():
            book.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    draw(root, *(f"TestImage/{i:05d}.jpg" for i in range(1, 9)))


def _cell(value: str | float) -> str:
    return f'<c t="inlineStr"><is><t>{value}</t></is></c>' if isinstance(value, str) else f"<c><v>{value}</v></c>"


def agiqa3k(root: Path) -> None:
    head = b"name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\r\n"
    rows = b"AttnGAN_normal_000.jpg,statue of a man,,,,0.965602553,0.232701012,0.40889324,0.616077222\r\n"
    rows += b'sd_1.jpg,"a cat, asleep",,,baroque,5,0.5,1,1\r\n'
    put(root, "data.csv", head + rows)
    draw(root, "AttnGAN_normal_000.jpg", "sd_1.jpg")


def avt_ai(root: Path) -> None:
    put(
        root,
        "avtai224.csv",
        b"image_id,mos01,mos_std01,source\n" + b"".join(b"p%d.jpg,0.%d,0.1,dalle\n" % (i, i) for i in range(10)),
    )
    draw(root, *(f"images/p{i}.jpg" for i in range(10)))


def sophoappeal(root: Path) -> None:
    head = "file,source," + ",".join(
        f"{group}_count_{k}" for group in ("crowd", "university", "lab") for k in range(1, 6)
    )
    rows = ["0000_500px.jpg,500px,4,3,11,6,1,3,16,2,3,0,1,6,5,6,4", "0001_own.jpg,own,,,,,,,,,,,7,5,5,4,6"]
    rows += [f"{k:04d}_ava.jpg,ava,0,0,{k},5,0,0,0,5,{k},0,,,,," for k in range(2, 12)]
    put(root, "labels.csv", "\n".join([head, *rows]).encode())
    draw(root, "images/0000_500px.jpg", "images/0001_own.jpg", *(f"images/{k:04d}_ava.jpg" for k in range(2, 12)))


def eva(root: Path) -> None:
    head = "image_id=user_id=score=difficulty=visual=composition=quality=semantic=vote_time=1=2=3=4\n"
    rows = "71=E1=6=3=4=3=2=3=12.5=1=0=0=0\n71=E2=9=3=2=4=2=3=8=1=1=0=0\n106=E1=0=4=1==1=2=9.1=0=0=1=0\n"
    put(root, "data/votes_filtered.csv", BOM + (head + rows).encode())
    put(root, "data/users.csv", b"id=age=region\nE1=1990=FR\n")
    draw(root, "images/EVA_together/71.jpg", "images/EVA_together/106.jpg")


def baid(root: Path) -> None:
    # the first lines are the published files' own
    put(root, "dataset/train_set.csv", b"image,score\n24429.jpg,4.034603\n55406.jpg,3.672703\n")
    put(root, "dataset/val_set.csv", b"image,score\n241705.jpg,9.999043\n")
    put(root, "dataset/test_set.csv", b"image,score\n12938.jpg,5.1598\n")
    draw(root, *(f"images/{name}.jpg" for name in (24429, 55406, 241705, 12938)))


def kadid(root: Path) -> None:
    # the first line is the published file's own
    rows = ["dist_img,ref_img,dmos,var", "I01_01_01.png,I01.png,4.57,0.496"]
    rows += [f"I{k:02d}_01_0{level}.png,I{k:02d}.png,{5 - 0.5 * level},0.5" for k in range(2, 6) for level in (1, 5)]
    put(root, "dmos.csv", "\n".join(rows).encode())
    names = [row.split(",")[0] for row in rows[1:]]
    draw(root, *(f"images/{name}" for name in (*names, *(f"I0{k}.png" for k in range(1, 6)))))


def artimuse10k(root: Path) -> None:
    # the first entries are the published file's own
    rows = [("0_263.jpg", 4.08), ("0_1150.jpg", 4.3), ("15_9.jpg", 9.78), ("4_1.jpg", 1)]
    put(
        root,
        "ArtiMuse-10K.json",
        json.dumps([{"image": name, "gt_score": score} for name, score in rows], indent=2).encode(),
    )
    draw(root, *(f"image/{name}" for name, _ in rows))


def pipal(root: Path) -> None:
    put(root, "Train_Label/A0001.txt", b"A0001_00_00.bmp,1520.0648\nA0001_05_03.bmp,1850\n")
    # the first line is the published file's own
    put(root, "Train_Label/A0002.txt", b"A0002_00_00.bmp,1466.4372\r\nA0002_02_01.bmp,1375\r\n")
    for k in range(3, 6):
        put(root, f"Train_Label/A000{k}.txt", f"A000{k}_00_00.bmp,900\nA000{k}_01_00.bmp,1500.5".encode())
        draw(root, f"Distortion_3/A000{k}_00_00.bmp", f"Distortion_4/A000{k}_01_00.bmp")
    draw(root, "Distortion_1/A0001_00_00.bmp", "Distortion_2/A0001_05_03.bmp")
    draw(
        root,
        "Distortion_1/A0002_00_00.bmp",
        "Distortion_2/A0002_02_01.bmp",
        *(f"Train_Ref/A000{k}.bmp" for k in range(1, 6)),
    )


def folder(root: Path) -> None:
    put(root, "labels.csv", "image,mos,split\nä b.png,0.5,train\n图.png,1,test\n".encode())
    draw(root, "ä b.png", "图.png")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        *(ava, tad66k, flickr_aes, para, aadb, koniq, spaq, agiqa3k, avt_ai, sophoappeal, eva, baid, kadid),
        *(artimuse10k, pipal, folder),
    )
}

SCALES: dict[str, list[float]] = {"artimuse10k": [0, 10], "pipal": [900, 1850]}  # data.scale, where it must be given
