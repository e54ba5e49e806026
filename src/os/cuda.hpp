// Memory that a GPU's driver reaches by itself (DMA), through the driver's library as it is found
// at run time: nothing is linked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace penstock::os {

// Pins a range for every CUDA context of this process, for as long as it exists.
class CudaRegistration {
public:
    enum class Access { ReadWrite, Read };  // of the range's mapping
    // Null: `problem` says why, as a clause: no driver, no device, or what the driver said. The
    // range's memory must be there, and must stay.
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
