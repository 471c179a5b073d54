"""What packages require of each other, by their metadata."""

import re
from dataclasses import dataclass

from voxport.cli.doctor.environment import Environment, Package, normal


@dataclass(frozen=True)
class Need:
    """A requirement that applies here, `text` without its marker, and the version that is `installed`, if any."""

    name: str
    text: str
    installed: str | None
    met: bool


def needs_of(package: Package, extra: str, environment: Environment) -> list[Need]:
    """What `package` requires here; with `extra`, what that extra adds, else what is required always.

    Markers and versions are read by `packaging`, which comes with ONNX Runtime and Lightning. Without it,
    requirements that hang on anything but an extra are left out, and only `==X.Y.*` is compared.
    """
    try:
        from packaging import requirements
    except ImportError:
        return _read_plainly(package, extra, environment)
    found = []
    for text in package.requires:
        try:
            requirement = requirements.Requirement(text)
        except requirements.InvalidRequirement:
            continue  # an old package's own mistake
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        applies = always if not extra else not always and marker is not None and marker.evaluate({"extra": extra})
        if applies:
            name, version = normal(requirement.name), environment.version(normal(requirement.name))
            met = version is not None and (version == "unknown" or requirement.specifier.contains(version, True))
            found.append(Need(name, f"{name}{requirement.specifier}", version, met))
    return found


def _read_plainly(package: Package, extra: str, environment: Environment) -> list[Need]:
    found = []
    for text in package.requires:
        wanted, _, marker = text.partition(";")
        named = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        others = re.sub(r"""extra\s*==\s*['"][^'"]+['"]|and|[()\s]""", "", marker)
        if others or (named[1] if named else "") != extra:
            continue
        match = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*(.*)", wanted.strip())
        if match is None:
            continue
        name, specifier = normal(match[1]), match[2].strip("() ")
        version = environment.version(name)
        series = re.fullmatch(r"==(\d+\.\d+)\.\*", specifier)
        met = version is not None and (series is None or release(version)[:2] == release(series[1]))
        found.append(Need(name, f"{name}{specifier}", version, met))
    return found


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: (2, 11, 0) for 2.11.0+cu130."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
