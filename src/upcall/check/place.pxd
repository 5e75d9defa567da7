cdef class Frozen:
    cdef list parts, made
    cdef dict memo
    cdef bint opaque
    cdef int add(self, object value) except -1
    cdef int add_mapping(self, dict mapping) except -1

cdef set ITERATORS
cdef tuple FIXED
