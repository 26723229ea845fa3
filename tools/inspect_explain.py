"""`inspect-index explain`: everything that is known of one tag or digest, and what will become of it."""

import asyncio
import time
from dataclasses import asdict, dataclass

from engine.blobdir import BlobDirectory, read_at
from engine.descriptor import Descriptor, find_named
from engine.errors import CacheError, InvalidName
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_views import BlobView, LinkView, TagView
from engine.names import Digest
from engine.outlook import Outlook
from engine.subject import DigestSubject, Subject, TagSubject
from tools.inspect_listing import is_fresh
from tools.options import Site
from tools.output import Column, Field, Kind, Listing, Report, humane_bytes, humane_span
