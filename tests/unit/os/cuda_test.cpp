// Pinning for a GPU, against a stand-in for the driver: the calls, their order, and what is
// reported and undone when one fails.
#include "os/cuda.hpp"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

namespace penstock::os {
namespace {

// Loads the stand-in by its path before the code under test asks for its name, "libcuda.so.1": the
// loader then returns the stand-in, even where there is a real driver.
class CudaTest : public testing::Test {
protected:
    void SetUp() override {
        library_ = ::dlopen(PENSTOCK_STAND_IN_CUDA, RTLD_NOW | RTLD_LOCAL);
        ASSERT_NE(library_, nullptr) << ::dlerror();
    }
    void begin(const char* fails_at = "") {
        reinterpret_cast<void (*)(const char*)>(find("stand_in_begin"))(fails_at);
    }
    std::string protocol() {
        return reinterpret_cast<const char* (*)()>(find("stand_in_protocol"))();
    }
    template <typename Value>
    Value value(const char* name) {
        return *static_cast<Value*>(find(name));
    }
    std::unique_ptr<CudaRegistration> make() {
        return CudaRegistration::make(memory_.data(), memory_.size(), problem_);
    }

    std::array<std::byte, 4096> memory_{};
    std::string problem_;

private:
    void* find(const char* name) {
        void* const found = ::dlsym(library_, name);
        EXPECT_NE(found, nullptr) << name;
        return found;
    }
    void* library_ = nullptr;
};

TEST_F(CudaTest, TheRangeIsRegisteredInThePrimaryContextForAllContexts) {
    begin();
    const auto registration = make();
    ASSERT_NE(registration, nullptr) << problem_;
    EXPECT_EQ(protocol(), "init count get retain push register pop");
    EXPECT_EQ(value<void*>("stand_in_data"), memory_.data());
    EXPECT_EQ(value<std::size_t>("stand_in_bytes"), memory_.size());
    EXPECT_EQ(value<unsigned>("stand_in_flags"), 1U);  // CU_MEMHOSTREGISTER_PORTABLE
}

TEST_F(CudaTest, ReadOnlyMemoryIsRegisteredReadOnly) {
    begin();
    const auto registration = CudaRegistration::make(memory_.data(), memory_.size(), problem_,
                                                     CudaRegistration::Access::Read);
    ASSERT_NE(registration, nullptr) << problem_;
    EXPECT_EQ(value<unsigned>("stand_in_flags"), 9U);  // and CU_MEMHOSTREGISTER_READ_ONLY
}

TEST_F(CudaTest, UnpinningUndoesThePinning) {
    begin();
    auto registration = make();
    ASSERT_NE(registration, nullptr);
    begin();
    registration.reset();
    EXPECT_EQ(protocol(), "push unregister pop release");
}

TEST_F(CudaTest, AMissingDeviceIsReported) {
    begin("no device");
    EXPECT_EQ(make(), nullptr);
    EXPECT_EQ(problem_, "this machine has a CUDA driver and no device");
    EXPECT_EQ(protocol(), "init count");
}

TEST_F(CudaTest, TheDriversErrorIsQuoted) {
    for (const char* call : {"init", "count", "get", "retain"}) {
        begin(call);
        EXPECT_EQ(make(), nullptr);
        EXPECT_EQ(problem_, "the CUDA driver says: this was refused") << call;
        EXPECT_EQ(protocol().find("register"), std::string::npos) << call;
    }
}

TEST_F(CudaTest, ARefusedRangeLeavesNoContextBehind) {
    begin("register");
    EXPECT_EQ(make(), nullptr);
    EXPECT_EQ(problem_, "the CUDA driver says: this was refused");
    EXPECT_EQ(protocol(), "init count get retain push register pop release");
    begin("push");
    EXPECT_EQ(make(), nullptr);
    EXPECT_EQ(protocol(), "init count get retain push release");
}

}  // namespace
}  // namespace penstock::os
