// A stand-in for libcuda.so.1 where there is no GPU: records the calls that pinning makes, and
// fails at a chosen one. It is no evidence of what a real driver does.
#include <string>

namespace {

constexpr int kRefused = 1;

std::string& protocol() {
    static std::string calls;
    return calls;
}
std::string& failing() {
    static std::string name;
    return name;
}
int device_number = 7;
int context_marker = 0;

int answer(const std::string& call) {
    protocol() += (protocol().empty() ? "" : " ") + call;
    return call == failing() ? kRefused : 0;
}

}  // namespace

extern "C" {

// Called by the tests.
void stand_in_begin(const char* fails_at) {
    protocol().clear();
    failing() = fails_at;
}
const char* stand_in_protocol() {
    return protocol().c_str();
}
void* stand_in_data = nullptr;
std::size_t stand_in_bytes = 0;
unsigned stand_in_flags = 0;

// The driver's API.
int cuInit(unsigned) {
    return answer("init");
}
int cuDeviceGetCount(int* count) {
    *count = failing() == "no device" ? 0 : 1;
    return answer("count");
}
int cuDeviceGet(int* device, int number) {
    *device = device_number;
    return number == 0 ? answer("get") : kRefused;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = &context_marker;
    return device == device_number ? answer("retain") : kRefused;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    return device == device_number ? answer("release") : kRefused;
}
int cuCtxPushCurrent_v2(void* context) {
    return context == &context_marker ? answer("push") : kRefused;
}
int cuCtxPopCurrent_v2(void** context) {
    *context = &context_marker;
    return answer("pop");
}
int cuMemHostRegister_v2(void* data, std::size_t bytes, unsigned flags) {
    stand_in_data = data;
    stand_in_bytes = bytes;
    stand_in_flags = flags;
    return answer("register");
}
int cuMemHostUnregister(void* data) {
    return data == stand_in_data ? answer("unregister") : kRefused;
}
int cuGetErrorString(int result, const char** text) {
    *text = result == kRefused ? "this was refused" : nullptr;
    return 0;
}

}  // extern "C"
