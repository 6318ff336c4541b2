"""Objects of one resource, as fresh as what we have read or written.

Versions decide what is newer: all writes to a resource share one growing number, so that late
events, late responses of our own and lists can arrive in any order. What the watch has shown up
to a version is complete: an object at or below it which is not here has been deleted.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Object = dict[str, Any]
Indexer = Callable[[Object], Iterable[str]]
_Name = tuple[str, str]


class Cache:
    """Holds objects by namespace and name. What it returns is shared: never change it.

    Args:
        indexers: Functions, by the name of an index, that say under which values an object is
            to be found.
    """

    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        self._objects: dict[_Name, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indexes: dict[str, dict[str, dict[_Name, None]]] = {}
        self._complete = 0
        for name, indexer in (indexers or {}).items():
            self._add_index(name, indexer)

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def resource_version(self) -> str:
        """The version up to which every change is known; a watch continues from here."""
        return str(self._complete)

    def objects(self) -> list[Object]:
        """Return all objects."""
        return list(self._objects.values())

    def get(self, namespace: str, name: str) -> Object | None:
        """Return one object, if it is known; the namespace of a cluster's object is ''."""
        return self._objects.get((namespace, name))

    def by_index(self, index: str, value: str, namespace: str | None = None) -> list[Object]:
        """Return the objects that an indexer put under a value."""
        names = self._indexes[index].get(value, ())
        return [self._objects[n] for n in names if namespace is None or n[0] == namespace]

    def by_label(self, label: str, value: str, namespace: str | None = None) -> list[Object]:
        """Return the objects with that label; the first query for a label makes an index."""
        index = f"label {label}"
        if index not in self._indexers:
            self._add_index(index, lambda obj: _label(obj, label))
        return self.by_index(index, value, namespace)

    def replace(self, items: Iterable[Object], resource_version: str) -> list[Object]:
        """Take over a list of all objects.

        Returns:
            What the watch has not shown yet: new, changed and vanished objects.
        """
        version, shown = int(resource_version), self._complete
        if version < shown:
            # Only a restored backup counts backwards: nothing held compares with it.
            vanished = self.objects()
            for held in vanished:
                self._drop(held)
        else:
            vanished = []
        listed = {_name(item): item for item in items}
        for name, held in list(self._objects.items()):
            if name not in listed and _version(held) <= version:
                self._drop(held)
                vanished.append(held)
        changed = [obj for obj in listed.values() if self._put(obj) or _version(obj) > shown]
        self._complete = version
        return changed + [obj for obj in vanished if _name(obj) not in listed]

    def upsert(self, obj: Object) -> bool:
        """Take in an object that was read or written; say whether that was news."""
        if _name(obj) not in self._objects and _version(obj) <= self._complete:
            return False
        return self._put(obj)

    def remove(self, obj: Mapping[str, Any]) -> bool:
        """Forget an object unless another one took its name; say whether it was here."""
        held = self._objects.get(_name(obj))
        if held is None or held["metadata"]["uid"] != obj["metadata"]["uid"]:
            return False
        self._drop(held)
        return True

    def advance(self, resource_version: str) -> None:
        """Note that the watch has shown everything up to a version."""
        self._complete = max(self._complete, int(resource_version))

    def _put(self, obj: Object) -> bool:
        held = self._objects.get(_name(obj))
        if held is not None:
            if _version(obj) <= _version(held):
                return False
            self._drop(held)
        obj["metadata"].pop("managedFields", None)
        self._objects[_name(obj)] = obj
        for index, indexer in self._indexers.items():
            self._index(index, indexer, obj)
        return True

    def _drop(self, held: Object) -> None:
        name = _name(held)
        del self._objects[name]
        for index, indexer in self._indexers.items():
            for value in set(indexer(held)):
                names = self._indexes[index][value]
                del names[name]
                if not names:
                    del self._indexes[index][value]

    def _add_index(self, index: str, indexer: Indexer) -> None:
        self._indexers[index] = indexer
        self._indexes[index] = {}
        for obj in self._objects.values():
            self._index(index, indexer, obj)

    def _index(self, index: str, indexer: Indexer, obj: Object) -> None:
        for value in indexer(obj):
            self._indexes[index].setdefault(value, {})[_name(obj)] = None


def _name(obj: Mapping[str, Any]) -> _Name:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(obj: Mapping[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _label(obj: Object, label: str) -> Iterable[str]:
    value = (obj["metadata"].get("labels") or {}).get(label)
    return () if value is None else (value,)
