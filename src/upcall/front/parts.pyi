from ..kern.layout import Seg
from .port import Attachment, Sender

class PartsSender(Sender):
    def __init__(self, attachment: Attachment, s: Seg, owner: object, queue: int, thread: int) -> None: ...
