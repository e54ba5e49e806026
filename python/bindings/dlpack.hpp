// The parts of DLPack's binary interface that the codec uses, version 1.3
// (https://github.com/dmlc/dlpack, include/dlpack/dlpack.h). Names and layout are DLPack's.
#pragma once

#include <cstdint>

namespace penstock::py::dlpack {

inline constexpr std::uint32_t kMajorVersion = 1;
inline constexpr std::uint32_t kMinorVersion = 1;

enum DeviceType : std::int32_t { kDLCPU = 1, kDLCUDAHost = 3, kDLROCMHost = 11 };

enum TypeCode : std::uint8_t {
    kDLInt = 0,
    kDLUInt = 1,
    kDLFloat = 2,
    kDLBfloat = 4,
    kDLComplex = 5,
    kDLBool = 6,
    kDLFloat8_e3m4 = 7,
    kDLFloat8_e4m3 = 8,
    kDLFloat8_e4m3b11fnuz = 9,
    kDLFloat8_e4m3fn = 10,
    kDLFloat8_e4m3fnuz = 11,
    kDLFloat8_e5m2 = 12,
    kDLFloat8_e5m2fnuz = 13,
    kDLFloat8_e8m0fnu = 14,
};

struct Device {
    std::int32_t device_type;
    std::int32_t device_id;
};

struct DataType {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    std::int32_t ndim;
    DataType dtype;
    std::int64_t* shape;
    std::int64_t* strides;  // in items; null before version 1.2: C order
    std::uint64_t byte_offset;
};

// In a capsule named "dltensor".
struct ManagedTensor {
    Tensor dl_tensor;
    void* manager_ctx;
    void (*deleter)(ManagedTensor* self);
};

struct Version {
    std::uint32_t major;
    std::uint32_t minor;
};

// In a capsule named "dltensor_versioned".
struct ManagedTensorVersioned {
    Version version;
    void* manager_ctx;
    void (*deleter)(ManagedTensorVersioned* self);
    std::uint64_t flags;
    Tensor dl_tensor;
};

// In a capsule named "dlpack_exchange_api", at the type's attribute __dlpack_c_exchange_api__.
struct ExchangeApi {
    Version version;
    ExchangeApi* previous;
    int (*managed_tensor_allocator)(Tensor* prototype, ManagedTensorVersioned** out,
                                    void* error_context,
                                    void (*set_error)(void*, const char*, const char*));
    int (*managed_tensor_from_py_object_no_sync)(void* object, ManagedTensorVersioned** out);
    int (*managed_tensor_to_py_object_no_sync)(ManagedTensorVersioned* tensor, void** out);
    int (*tensor_from_py_object_no_sync)(void* object, Tensor* out);  // may be null
    int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // namespace penstock::py::dlpack
