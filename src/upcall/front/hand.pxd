from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport uint64_t

from ..machine.door cimport forked, now_ns
from ..kern.layout cimport Seg
from ..parlib.mbox cimport Cursor

cdef extern from "Python.h":
    enum:
        PYGEN_NEXT
    int PyIter_Send(object steps, object value, PyObject **result) except -1

cdef class Hand:
    cdef Seg s
    cdef Cursor cur
    cdef uint64_t where, blocked_ns
    cdef readonly object event, handler
    cdef object report
    cdef public object host, steps, gate
    cdef object step(self, object error)
