"""Sources -> units -> documents. What cannot be read is counted by its reason, never dropped in silence."""

from ropewalk.data.sources.listing import listed
from ropewalk.data.sources.read import read
from ropewalk.data.sources.units import ID_SEEN, OF_FILE, Document, Listed, Refusal, Unit

__all__ = ["ID_SEEN", "OF_FILE", "Document", "Listed", "Refusal", "Unit", "listed", "read"]
