// A Unix stream socket for each reader: an eight-byte length before every message, one writev per
// send, and a receive buffer that takes all that the kernel has.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "bench/cpp/common/failure.hpp"
#include "bench/cpp/links/link.hpp"

namespace penstock::bench {

class SocketEnd {
public:
    SocketEnd(int descriptor, std::size_t message_size)
        : descriptor_(descriptor), buffer_(message_size + sizeof(std::uint64_t) + kReadAhead) {}

    void send(Bytes message) {
        std::uint64_t length = message.size();
        // writev takes both as writable, and writes to neither.
        iovec parts[2] = {{&length, sizeof(length)},
                          {const_cast<std::byte*>(message.data()), message.size()}};
        iovec* part = parts;
        const iovec* end = parts + 2;
        while (part != end) {
            ssize_t done = ::writev(descriptor_, part, static_cast<int>(end - part));
            require(done >= 0 || errno == EINTR, "writev failed");
            while (part != end && done >= static_cast<ssize_t>(part->iov_len)) {
                done -= static_cast<ssize_t>(part->iov_len);
                ++part;
            }
            if (part != end && done > 0) {
                part->iov_base = static_cast<std::byte*>(part->iov_base) + done;
                part->iov_len -= static_cast<std::size_t>(done);
            }
        }
    }

    // The next message, valid until the next call.
    Bytes receive() {
        std::uint64_t length = 0;
        std::memcpy(&length, take(sizeof(length)), sizeof(length));
        return {take(length), length};
    }

private:
    static constexpr std::size_t kReadAhead = 64 << 10U;

    const std::byte* take(std::size_t size) {
        if (begin_ + size > buffer_.size()) {
            std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
            end_ -= begin_;
            begin_ = 0;
        }
        while (end_ - begin_ < size) {
            const ssize_t got =
                ::recv(descriptor_, buffer_.data() + end_, buffer_.size() - end_, 0);
            require(got > 0 || (got < 0 && errno == EINTR), "recv failed");
            end_ += got > 0 ? static_cast<std::size_t>(got) : 0;
        }
        const std::byte* at = buffer_.data() + begin_;
        begin_ += size;
        return at;
    }

    int descriptor_;
    std::vector<std::byte> buffer_;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

class UnixSocketLink {
public:
    static constexpr const char* kName = "unix socket";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = 0;

    explicit UnixSocketLink(const Place& place) : place_(place), pairs_(place.readers) {
        for (Pair& pair : pairs_) {
            int ends[2];
            require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0,
                    "socketpair failed");
            pair = {ends[0], ends[1]};
        }
    }
    UnixSocketLink(const UnixSocketLink&) = delete;
    UnixSocketLink& operator=(const UnixSocketLink&) = delete;
    ~UnixSocketLink() {
        for (const Pair& pair : pairs_) {
            ::close(pair.driver);
            ::close(pair.reader);
        }
    }

    void open_driver() {
        for (const Pair& pair : pairs_) {
            ends_.emplace_back(pair.driver, place_.message_size);
        }
    }
    void open_reader(unsigned rank) {
        ends_.emplace_back(pairs_[rank].reader, place_.message_size);
    }
    void close() {}

    void send(Bytes message) {
        for (SocketEnd& end : ends_) {
            end.send(message);
        }
    }
    void answer(Bytes message) { send(message); }
    template <typename Use>
    void receive(Use&& use) {
        for (SocketEnd& end : ends_) {
            use(end.receive());
        }
    }
    template <typename Use>
    void collect(Use&& use) {
        receive(use);
    }

private:
    struct Pair {
        int driver = -1;
        int reader = -1;
    };
    Place place_;
    std::vector<Pair> pairs_;
    std::vector<SocketEnd> ends_;  // the driver has one for each reader, a reader has its own
};

}  // namespace penstock::bench
