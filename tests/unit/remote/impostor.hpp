// A server for tests whose answers the test chooses.
#pragma once

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock::test {

// A server on a Unix socket: answers PING properly and everything else with `answer`, then hangs
// up.
class Impostor {
public:
    using Answer = std::function<std::string(const std::string& request)>;

    // `split`: the reader has taken that many bytes of an answer before the others are sent.
    explicit Impostor(Answer answer, std::size_t split = 0)
        : answer_(std::move(answer)), split_(split) {
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un place{};
        place.sun_family = AF_UNIX;
        std::strncpy(place.sun_path, path().c_str(), sizeof(place.sun_path) - 1);
        require(::bind(listener_, reinterpret_cast<sockaddr*>(&place), sizeof(place)) == 0);
        require(::listen(listener_, 16) == 0);
        thread_ = std::thread([this] { serve(); });
    }
    Impostor(const Impostor&) = delete;
    Impostor& operator=(const Impostor&) = delete;
    ~Impostor() {
        end_.open();
        thread_.join();
        ::close(listener_);
    }

    [[nodiscard]] std::string path() const { return folder_ / "socket"; }

private:
    void serve() {
        std::vector<pollfd> sockets{{end_.reading(), POLLIN, 0}, {listener_, POLLIN, 0}};
        while (sockets[0].revents == 0) {
            ::poll(sockets.data(), sockets.size(), -1);
            for (std::size_t i = 2; i < sockets.size(); ++i) {
                if (sockets[i].revents != 0 && !talk(sockets[i].fd)) {
                    ::close(sockets[i].fd);
                    sockets[i].fd = -1;  // poll() skips it
                    sockets[i].revents = 0;
                }
            }
            if (sockets[1].revents != 0) {
                sockets.push_back(
                    {::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC), POLLIN, 0});
            }
        }
        for (std::size_t i = 2; i < sockets.size(); ++i) ::close(sockets[i].fd);
    }

    // Returns false to hang up.
    bool talk(int socket) {
        char request[4096];
        const ssize_t got = ::recv(socket, request, sizeof(request), 0);
        if (got <= 0) return false;
        const std::string text(request, static_cast<std::size_t>(got));
        const bool is_greeting = text.find("PING") != std::string::npos;
        const std::string answer = is_greeting ? "+PONG\r\n" : answer_(text);
        const std::size_t first = is_greeting ? 0 : std::min(split_, answer.size());
        send_all(socket, answer.substr(0, first));
        if (first > 0) await([socket] { return unread_bytes(socket) == 0; });
        send_all(socket, answer.substr(first));
        return is_greeting;
    }

    // Until the reader hangs up.
    static void send_all(int socket, std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent <= 0) return;
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }
    static int unread_bytes(int socket) {
        int bytes = 0;
        require(::ioctl(socket, SIOCOUTQ, &bytes) == 0);
        return bytes;
    }

    // A pipe whose reading end can be polled.
    class End {
    public:
        End() { require(::pipe(ends_) == 0); }
        End(const End&) = delete;
        End& operator=(const End&) = delete;
        ~End() {
            ::close(ends_[0]);
            ::close(ends_[1]);
        }
        void open() const { require(::write(ends_[1], "", 1) == 1); }
        [[nodiscard]] int reading() const { return ends_[0]; }

    private:
        int ends_[2] = {-1, -1};
    };

    TemporaryFolder folder_;
    const Answer answer_;
    const std::size_t split_;
    End end_;
    int listener_ = -1;
    std::thread thread_;
};

// A value as a server sends it.
inline std::string bulk(const std::string& value) {
    return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
}

}  // namespace penstock::test
