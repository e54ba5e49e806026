// Memory that a GPU accesses directly (DMA), through the driver's library if it is found at run
// time: nothing is linked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace penstock::os {

// Pins a range for every CUDA context of this process, for the lifetime of this object.
class CudaRegistration {
public:
    enum class Access { ReadWrite, Read };  // of the mapping
    // Null: `problem` names the reason as a clause: no driver, no device, or the driver's error.
    // The range's memory must be present, and must stay mapped.
    static std::unique_ptr<CudaRegistration> make(std::byte* data, std::uint64_t bytes,
                                                  std::string& problem,
                                                  Access access = Access::ReadWrite);
    CudaRegistration(const CudaRegistration&) = delete;
    CudaRegistration& operator=(const CudaRegistration&) = delete;
    ~CudaRegistration();

private:
    struct Driver;
    explicit CudaRegistration(std::unique_ptr<Driver> driver, std::byte* data) noexcept;

    std::unique_ptr<Driver> driver_;
    std::byte* data_;
};

}  // namespace penstock::os
