// Sends three messages to one reader. Start it, and ./reader beside it, in either order.
#include <penstock/broadcast.hpp>

#include <chrono>
#include <iostream>
#include <span>
#include <string>

int main(int argc, char** argv) try {
    const std::string name = argc > 1 ? argv[1] : "example";
    auto writer = penstock::BroadcastWriter::create(name, {.readers = 1});
    writer.wait_ready(std::chrono::seconds(30)).or_throw();
    for (int step = 0; step < 3; ++step) {
        const std::string text = "step " + std::to_string(step);
        writer.send(std::as_bytes(std::span(text))).or_throw();
    }
    writer.close();  // the reader still gets all messages
    return 0;
} catch (const penstock::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
