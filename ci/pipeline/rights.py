"""Rights: reads what a container wants beyond the sandbox. The runner decides whether it gets it."""

from __future__ import annotations

from ci.pipeline.fields import Fields
from ci.pipeline.problems import shown
from ci.pipeline.schema import Shape
from ci.pipeline.yaml import Mapping, Node, Sequence
from ci.spec import Device, Rights


def read_rights(fields: Fields) -> Rights:
    return Rights(
        is_privileged=fields.flag("privileged"),
        dns=fields.texts("dns") or (),
        dns_search=fields.texts("dns_search") or (),
        extra_hosts=_hosts(fields),
        network_mode=fields.text("network_mode") or "",
        devices=_devices(fields),
        tmpfs=fields.texts("tmpfs") or (),
        shm_bytes=fields.size("shm_size"),
    )


def read_user(fields: Fields) -> str:
    """`user`, or `backend_options.docker.user`."""
    user = fields.text("user") or ""
    node = fields.get("backend_options", Shape.BACKEND)
    for key, value in node.entries if isinstance(node, Mapping) else ():
        if key.text != "docker":
            message = f"the options of {shown(key.text)} mean nothing here: jobs run in Docker"
            fields.reader.problems.warn(key.mark, message)
        elif isinstance(value, Mapping) and (inner := value.by_name.get("user")) and not user:
            user = fields.reader.text(inner, '"user"') or ""
    return user


def _hosts(fields: Fields) -> tuple[str, ...]:
    found = fields.texts("extra_hosts") or ()
    for text in found:
        if ":" not in text and "$" not in text:
            message = f'a line of "extra_hosts" is "name:address", this is {shown(text)}'
            fields.reader.problems.error(fields.known["extra_hosts"].mark, message)
    return found


def _devices(fields: Fields) -> tuple[Device, ...]:
    node = fields.get("devices", Shape.DEVICES)
    nodes = () if node is None else node.items if isinstance(node, Sequence) else (node,)
    return tuple(device for item in nodes if (device := _device(item, fields)))


def _device(node: Node, fields: Fields) -> Device | None:
    """`/dev/fuse` or `/dev/of-host:/dev/in-container`, with rights after it that are left out."""
    text = fields.reader.text(node, '"devices"') or ""
    host, _, rest = text.partition(":")
    path = rest.partition(":")[0] or host
    if host.startswith("/") and path.startswith("/"):
        return Device(path=path, host=host)
    if text:
        message = f'a device is "/dev/name" or "/dev/name:/dev/other", this is {shown(text)}'
        fields.reader.problems.error(node.mark, message)
    return None
