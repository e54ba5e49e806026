// Prints every message of ./writer, read in place, until the writer closes.
#include <penstock/broadcast.hpp>

#include <chrono>
#include <iostream>
#include <string>
#include <string_view>
#include <utility>

int main(int argc, char** argv) try {
    const std::string name = argc > 1 ? argv[1] : "example";
    auto reader = penstock::BroadcastReader::attach(name, 0, std::chrono::seconds(30));
    while (true) {
        auto message = reader.recv();
        if (message.code() == penstock::ErrorCode::Closed) return 0;
        const auto received = std::move(message).or_throw();  // its bytes lie in shared memory
        const auto bytes = received.bytes();
        std::cout << std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())
                  << '\n';
    }
} catch (const penstock::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
