// The few calls of libcuda.so.1 that pinning needs (CUDA Driver API: cuInit, device and primary
// context, cuMemHostRegister). PyTorch and the runtime use the primary context too.
#include "os/cuda.hpp"

#include <dlfcn.h>

#include <utility>

namespace penstock::os {
namespace {

using CuResult = int;
using CuDevice = int;
using CuContext = void*;
constexpr unsigned kPortable = 1;  // CU_MEMHOSTREGISTER_PORTABLE: for all contexts
constexpr unsigned kReadOnly = 8;  // CU_MEMHOSTREGISTER_READ_ONLY: the device only reads it

}  // namespace

struct CudaRegistration::Driver {
    CuResult (*init)(unsigned) = nullptr;
    CuResult (*device_count)(int*) = nullptr;
    CuResult (*device_get)(CuDevice*, int) = nullptr;
    CuResult (*retain)(CuContext*, CuDevice) = nullptr;
    CuResult (*release)(CuDevice) = nullptr;
    CuResult (*push)(CuContext) = nullptr;
    CuResult (*pop)(CuContext*) = nullptr;
    CuResult (*host_register)(void*, std::size_t, unsigned) = nullptr;
    CuResult (*host_unregister)(void*) = nullptr;
    CuResult (*error_string)(CuResult, const char**) = nullptr;
    CuDevice device = 0;
    CuContext context = nullptr;

    // The library stays loaded: other code in the process may use it.
    bool load(std::string& problem) {
        void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            problem = "this machine has no CUDA driver (libcuda.so.1 was not found)";
            return false;
        }
        const bool is_whole = find(library, "cuInit", init) &&
                              find(library, "cuDeviceGetCount", device_count) &&
                              find(library, "cuDeviceGet", device_get) &&
                              find(library, "cuDevicePrimaryCtxRetain", retain) &&
                              find(library, "cuDevicePrimaryCtxRelease_v2", release) &&
                              find(library, "cuCtxPushCurrent_v2", push) &&
                              find(library, "cuCtxPopCurrent_v2", pop) &&
                              find(library, "cuMemHostRegister_v2", host_register) &&
                              find(library, "cuMemHostUnregister", host_unregister) &&
                              find(library, "cuGetErrorString", error_string);
        if (!is_whole) problem = "the CUDA driver is too old: it lacks a call that is needed";
        return is_whole;
    }

    bool open(std::string& problem) {
        int devices = 0;
        if (!succeeds(init(0), problem) || !succeeds(device_count(&devices), problem)) {
            return false;
        }
        if (devices == 0) {
            problem = "this machine has a CUDA driver and no device";
            return false;
        }
        return succeeds(device_get(&device, 0), problem) &&
               succeeds(retain(&context, device), problem);
    }

    // Runs a call in the primary context.
    template <typename Call>
    CuResult within(Call&& call) {
        if (const CuResult result = push(context); result != 0) return result;
        const CuResult result = call();
        CuContext popped = nullptr;
        pop(&popped);
        return result;
    }

    bool succeeds(CuResult result, std::string& problem) const {
        if (result == 0) return true;
        const char* text = nullptr;
        error_string(result, &text);
        problem = "the CUDA driver says: ";
        problem.append(text == nullptr ? "error " + std::to_string(result) : std::string(text));
        return false;
    }

private:
    template <typename Call>
    static bool find(void* library, const char* name, Call& call) {
        call = reinterpret_cast<Call>(::dlsym(library, name));
        return call != nullptr;
    }
};

CudaRegistration::CudaRegistration(std::unique_ptr<Driver> driver, std::byte* data) noexcept
    : driver_(std::move(driver)), data_(data) {}

std::unique_ptr<CudaRegistration> CudaRegistration::make(std::byte* data, std::uint64_t bytes,
                                                         std::string& problem, Access access) {
    auto driver = std::make_unique<Driver>();
    if (!driver->load(problem) || !driver->open(problem)) return nullptr;
    const unsigned flags = access == Access::Read ? kPortable | kReadOnly : kPortable;
    const CuResult result =
        driver->within([&] { return driver->host_register(data, bytes, flags); });
    if (!driver->succeeds(result, problem)) {
        driver->release(driver->device);
        return nullptr;
    }
    return std::unique_ptr<CudaRegistration>(new CudaRegistration(std::move(driver), data));
}

CudaRegistration::~CudaRegistration() {
    driver_->within([this] { return driver_->host_unregister(data_); });
    driver_->release(driver_->device);
}

}  // namespace penstock::os
