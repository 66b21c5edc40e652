"""Names what a file is that holds no readable weights: a web page, a Git LFS pointer, a Keras file, ..."""

from __future__ import annotations

INDEX = "an index of a network in several files"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (0, b"/annex/objects/", "a git-annex pointer, not the file itself: run `git annex get`"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras writes these): convert it to a torch or safetensors file"),
    (0, b"\x93NUMPY", "a numpy array (.npy), not a file of named tensors"),
    (0, b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (0, b"BZh", "compressed with bzip2: unpack it first"),
    (0, b"\xfd7zXZ\x00", "compressed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a rar archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first (torch before 0.2 wrote weights so; load and save it again)"),
    (0, b"GGUF", "a GGUF file, for language models"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program for Windows"),
)
_PARTS: tuple[tuple[str, str], ...] = (
    ("code/", "a TorchScript archive, which is a program: save its state_dict() instead"),
    ("constants.pkl", "a TorchScript archive, which is a program: save its state_dict() instead"),
    ("archive_format", "an archive of torch.export, which is a program: save the module's state_dict() instead"),
    ("model.weights.h5", "a Keras file: convert it to a torch or safetensors file"),
    ("[Content_Types].xml", "an office document"),
    ("META-INF/", "a Java archive"),
)


def kind_of(head: bytes) -> str | None:
    """What a file is, by its first 512 bytes; None for what may be weights."""
    for offset, magic, kind in _MAGIC:
        if head[offset:].startswith(magic):
            return kind
    if not head.strip(b"\0"):
        return "nothing but zeros at its beginning: an unfinished download"
    # ONNX and SavedModel are protocol buffers; an ONNX file begins with its version and names its producer.
    if head[:1] == b"\x08" and (b"onnx" in head[:64].lower() or b"pytorch" in head[:64]):
        return "an ONNX model: export the network's state_dict() instead"
    return _text_kind(head)


def _text_kind(head: bytes) -> str | None:
    """What a text file is; None for a file that is no text."""
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    # The protocol-0 pickles of old files are ASCII as well, but hold no printable line of text like these.
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in text) or text[:1] >= b"\x80":
        return None
    lower = text[:256].lower()
    if lower.startswith(b"<?xml"):
        return f"an XML text, not weights: a download link answered with {_beginning(text)}"
    if lower.startswith(b"<"):
        return "an HTML page, not weights: a download link answered with a page"
    if b'"weight_map"' in text or b'"total_size"' in text:
        return INDEX
    if lower.startswith((b"{", b"[")):
        return f"a JSON text, not weights: {_beginning(text)}"
    return f"a text, not weights: {_beginning(text)}"


def _beginning(text: bytes) -> str:
    """The first printable characters of a text, quoted."""
    shown = "".join(letter for letter in text[:200].decode("ascii", "replace") if letter.isprintable())
    return repr(shown[:40] + ("..." if len(shown) > 40 else ""))


def archive_kind(names: list[str]) -> str:
    """What a zip archive is that holds no torch file, by the names of its members."""
    for part, kind in _PARTS:
        if any(name == part or name.startswith(part) or f"/{part}" in name for name in names):
            return kind
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy archive (.npz): save its arrays as tensors in a safetensors file"
    return f"a zip archive without weights ({len(names)} files, first: {names[:2]})"
