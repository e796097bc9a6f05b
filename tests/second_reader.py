#!/usr/bin/env python3
"""A second reader of windlass bundles, written from docs/format.md.

Usage: second_reader.py LAYOUT ROLE:VERSION

Reads a bundle with Python's standard library and the `zstd` command, checks everything that the page says,
derives what can be derived, and prints it as JSON. Exits 1 with a reason when anything differs.
"Section" below means a section of that page.
"""

import hashlib
import json
import os
import struct
import subprocess
import sys

PIECE = 4_194_304
LARGE = 1_048_576
DIRECTORY, FILE, EXECUTABLE, SPECIAL, SYMLINK, HARDLINK = range(6)
NAMES = {DIRECTORY: "directory", SYMLINK: "symlink", HARDLINK: "hardlink"}


class Refused(Exception):
    pass


def require(condition, what):
    if not condition:
        raise Refused(what)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_blob(layout, digest, size=None):
    require(digest.startswith("sha256:") and len(digest) == 71, f"{digest} is no digest")
    with open(os.path.join(layout, "blobs", "sha256", digest[7:]), "rb") as file:
        data = file.read()
    require(digest_of(data) == digest, f"blob {digest} has another content")
    require(size is None or len(data) == size, f"blob {digest} has another size")
    return data


def canonical_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def frame_content_size(frame):
    """Content size from a zstd frame's header (RFC 8878, 3.1.1.1); checks what section 6 says of it."""
    require(frame[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    require(descriptor >> 2 & 1 == 0, "a frame has a checksum")
    require(descriptor & 3 == 0, "a frame has a dictionary")
    at = 5 if single_segment else 6
    flag = descriptor >> 6
    require(flag > 0 or single_segment, "a frame does not say its content size")
    width = {0: 1, 1: 2, 2: 4, 3: 8}[flag]
    return int.from_bytes(frame[at : at + width], "little") + (256 if flag == 1 else 0)


def unpack(frame):
    size = frame_content_size(frame)
    done = subprocess.run(["zstd", "-dcq"], input=frame, stdout=subprocess.PIPE, check=True)
    require(len(done.stdout) == size, "a frame holds another number of bytes than it says")
    return done.stdout


# Section 8: the table of contents.


class Column:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        require(self.at + count <= len(self.data), "the table is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self):
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                require(byte or not shift, "a number is not in its shortest form")
                require(value < 1 << 64, "a number is too large")
                return value
            shift += 7

    def done(self):
        require(self.at == len(self.data), "the table has bytes left over")


def read_table(raw):
    table = Column(raw)
    version = table.number()
    require(version == 1, f"the table has format {version}; a newer windlass wrote it")
    count, frames = table.number(), table.number()
    columns = [Column(table.bytes(table.number())) for _ in range(10)]
    kinds, prefixes, lengths, suffixes, sizes, modes, digests, link_lengths, links, targets = columns
    entries, before = [], b""
    for _ in range(count):
        kind = kinds.bytes(1)[0]
        shared = prefixes.number()
        require(shared <= len(before), "a path shares too much")
        path = before[:shared] + suffixes.bytes(lengths.number())
        require(path > before, "paths are out of order")
        require(os.path.commonprefix([before, path]) == before[:shared], "a path shares more than it says")
        check_path(path)
        entry = {"kind": kind, "path": path, "size": 0, "mode": None, "digest": None, "target": None}
        if kind in (FILE, EXECUTABLE, SPECIAL):
            entry["size"] = sizes.number()
            entry["digest"] = digests.bytes(32)
            entry["mode"] = {FILE: 0o644, EXECUTABLE: 0o755}.get(kind) or modes.number()
            if kind == SPECIAL:
                mode = entry["mode"]
                require(mode & 0o777 in (0o644, 0o755) and mode & 0o6000, "a mode is none of a file")
                require(mode & ~0o6755 == 0, "a mode is none of a file")
        elif kind == SYMLINK:
            entry["target"] = links.bytes(link_lengths.number())
            require(0 < len(entry["target"]) <= 4095 and b"\0" not in entry["target"], "a target is none")
        elif kind == HARDLINK:
            at = targets.number()
            require(at < len(entries) and entries[at]["kind"] in (FILE, EXECUTABLE, SPECIAL), "a hard link to nothing")
            entry["target"], entry["mode"] = entries[at]["path"], entries[at]["mode"]
        else:
            require(kind == DIRECTORY, f"unknown kind {kind}")
        entries.append(entry)
        before = path
    for column in columns:
        column.done()
    frame_sizes = [table.number() for _ in range(frames)]
    require(all(frame_sizes), "a frame has no bytes")
    table.done()
    return entries, frame_sizes


def check_path(path):
    components = path.split(b"/")
    path.decode()
    require(len(path) <= 4095 and b"\0" not in path, "a path is too long or holds a NUL")
    for component in components:
        require(component not in (b"", b".", b"..") and len(component) <= 255, f"{path!r} is no path")
        require(not component.startswith(b".wh."), f"{path!r} is a whiteout")


# Section 4: the canonical tar.


def split_name(path):
    if len(path) <= 100:
        return b"", path
    slash = path.find(b"/", len(path) - 101)
    if slash < 0 or slash > 155 or slash == len(path) - 1:
        return None
    return path[:slash], path[slash + 1 :]


def cut(text):
    return text[:100].decode(errors="ignore").encode()


def pax_record(key, value):
    rest = len(key) + len(value) + 3
    length = rest + 1
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def block(kind, name, prefix, mode, size, link):
    head = struct.pack(
        "100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x",
        name, b"%07o" % mode, b"0000000", b"0000000", b"%011o" % size, b"00000000001", b" " * 8, kind, link,
        b"ustar", b"00", b"", b"", b"0000000", b"0000000", prefix,
    )  # fmt: skip
    assert len(head) == 512
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]


def padding(size):
    return -size % 512


def headers(entry):
    kind, path, size = entry["kind"], entry["path"], entry["size"]
    letter, mode, link = {
        DIRECTORY: (b"5", 0o755, b""),
        SYMLINK: (b"2", 0o777, entry["target"]),
        HARDLINK: (b"1", entry["mode"], entry["target"]),
    }.get(kind, (b"0", entry["mode"], b""))
    if kind == DIRECTORY:
        path += b"/"
    split, records = split_name(path), b""
    if split is None:
        records += pax_record(b"path", path)
    if len(link) > 100:
        records += pax_record(b"linkpath", link)
    if size > 0o77777777777:
        records += pax_record(b"size", b"%d" % size)
    out = b""
    if records:
        out = block(b"x", b"PaxHeaders/entry", b"", 0o644, len(records), b"")
        out += records + bytes(padding(len(records)))
    prefix, name = split or (b"", cut(path))
    return out + block(letter, name, prefix, mode, 0 if size > 0o77777777777 else size, cut(link))


# Section 5: pieces, as sizes of tar.


def pieces(entries):
    cuts, size = [], 0
    for entry in entries:
        content, h = entry["size"], len(entry["headers"])
        large = content >= LARGE
        here = h if large else h + content + padding(content)
        if size > 0 and size + here > PIECE:
            cuts.append(size)
            size = 0
        size += here
        if large:
            cuts.append(size)
            cuts.extend(min(PIECE, content - at) for at in range(0, content, PIECE))
            size = padding(content)
        elif entry["digest"] and int.from_bytes(entry["digest"][:8], "big") * 8_388_608 < here << 64:
            cuts.append(size)
            size = 0
    if size > 0 and size + 1024 > PIECE:
        cuts.append(size)
        size = 0
    cuts.append(size + 1024)
    return cuts


# Section 7: the blob.


def read_layer(layout, descriptor, diff_id):
    require(descriptor["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd", "not a layer's media type")
    blob = read_blob(layout, descriptor["digest"], descriptor["size"])
    annotations = descriptor["annotations"]
    offset, length = int(annotations["dev.windlass.toc.offset"]), int(annotations["dev.windlass.toc.size"])
    packed = blob[offset : offset + length]
    require(digest_of(packed) == annotations["dev.windlass.toc.digest"], "the table has another digest")
    footer = struct.pack("<IIIIQQ", 0x184D2A57, 64, 1, 0, offset, length)
    footer += hashlib.sha256(packed).digest() + b"windlass"
    require(blob[offset - 8 : offset] == struct.pack("<II", 0x184D2A57, length), "the table's frame starts otherwise")
    require(blob[offset + length :] == footer, "the footer is another")

    entries, frame_sizes = read_table(unpack(packed))
    at = 0
    for entry in entries:
        entry["headers"] = headers(entry)
        entry["offset"] = at + len(entry["headers"])
        at = entry["offset"] + entry["size"] + padding(entry["size"])
    tar_sizes = pieces(entries)
    require(len(tar_sizes) == len(frame_sizes), "there is another number of frames than of pieces")
    require(sum(tar_sizes) == at + 1024, "pieces do not cover the tar")
    require(sum(frame_sizes) + 8 == offset, "frames do not end where the table starts")
    frames, tar, place = [], bytearray(), 0
    for size, tar_size in zip(frame_sizes, tar_sizes):
        frames.append({"offset": place, "size": size, "tar_offset": len(tar), "tar_size": tar_size})
        raw = unpack(blob[place : place + size])
        require(len(raw) == tar_size <= PIECE, f"the frame at {place} holds another number of bytes")
        tar += raw
        place += size
    require(digest_of(tar) == diff_id, "the tar has another digest than the config says")
    # The tar again, from the table and the contents alone.
    again = bytearray()
    for entry in entries:
        content = tar[entry["offset"] : entry["offset"] + entry["size"]]
        if entry["digest"]:
            require(hashlib.sha256(content).digest() == entry["digest"], f"{entry['path']!r} has another digest")
        again += entry["headers"] + content + bytes(padding(entry["size"]))
    require(again + bytes(1024) == tar, "the tar is not canonical")
    return {"digest": descriptor["digest"], "size": len(blob), "diff_id": diff_id, "entries": entries, "frames": frames}, tar


# Sections 2, 3, 9 and 10: the bundle.


def read_bundle(layout, name):
    with open(os.path.join(layout, "oci-layout"), "rb") as file:
        require(json.load(file)["imageLayoutVersion"] == "1.0.0", "another layout version")
    with open(os.path.join(layout, "index.json"), "rb") as file:
        index = json.load(file)
    ref_name = "org.opencontainers.image.ref.name"
    found = [one for one in index["manifests"] if one.get("annotations", {}).get(ref_name) == name]
    require(len(found) == 1, f"{len(found)} bundles are named {name}")
    manifest_bytes = read_blob(layout, found[0]["digest"], found[0]["size"])
    manifest = json.loads(manifest_bytes)
    config_bytes = read_blob(layout, manifest["config"]["digest"], manifest["config"]["size"])
    diff_ids = json.loads(config_bytes)["rootfs"]["diff_ids"]
    require(len(diff_ids) == len(manifest["layers"]), "another number of diff_ids than of layers")
    layers, tar = [], b""
    for descriptor, diff_id in zip(manifest["layers"], diff_ids):
        layer, tar = read_layer(layout, descriptor, diff_id)
        layers.append(layer)
    own = next(entry for entry in layers[-1]["entries"] if entry["path"] == b".windlass/bundle.json")
    record_bytes = tar[own["offset"] : own["offset"] + own["size"]]
    record = json.loads(record_bytes)
    require(record["format"] == 1, "a newer windlass wrote bundle.json")
    indented = json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n"
    require(indented == record_bytes, "bundle.json is written otherwise")

    tree = {entry["path"]: (number, entry) for number, layer in enumerate(layers) for entry in layer["entries"]}
    files = sum(entry["digest"] is not None or entry["kind"] == HARDLINK for _, entry in tree.values())
    unpacked = sum(entry["size"] for _, entry in tree.values())
    require((record["files"], record["unpacked_size"]) == (files - 1, unpacked - own["size"]), "bundle.json counts otherwise")
    config = {
        "architecture": "amd64", "config": {}, "created": "1970-01-01T00:00:01Z", "os": "linux",
        "rootfs": {"diff_ids": diff_ids, "type": "layers"},
    }  # fmt: skip
    require(canonical_json(config) == config_bytes, "the config is written otherwise")
    expected = {
        "annotations": {
            "dev.windlass.files": str(files),
            "dev.windlass.role": name.split(":")[0],
            "dev.windlass.unpacked-size": str(unpacked),
        },
        "config": {
            "digest": digest_of(config_bytes),
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": len(config_bytes),
        },
        "layers": manifest["layers"],
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "schemaVersion": 2,
    }
    require(canonical_json(expected) == manifest_bytes, "the manifest is written otherwise")
    return {
        "ref": name,
        "digest": found[0]["digest"],
        "files": files,
        "unpacked_size": unpacked,
        "layers": [dict(layer, entries=[shown(entry) for entry in layer["entries"]]) for layer in layers],
        "entries": [dict(shown(entry), layer=number) for _, (number, entry) in sorted(tree.items())],
        "record": record,
    }


def shown(entry):
    out = {"path": entry["path"].decode(), "type": NAMES.get(entry["kind"], "file"), "offset": entry["offset"]}
    if entry["kind"] == DIRECTORY:
        out["mode"] = "0755"
    if entry["digest"]:
        out |= {"mode": f"{entry['mode']:04o}", "size": entry["size"], "digest": "sha256:" + entry["digest"].hex()}
    if entry["target"]:
        out["target"] = entry["target"].decode()
    return out


if __name__ == "__main__":
    try:
        print(json.dumps(read_bundle(sys.argv[1], sys.argv[2])))
    except (Refused, KeyError, ValueError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
