// URLs of servers, valid and malformed, and their text in error messages.
#include "remote/endpoint.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/support/verdict.hpp"

namespace penstock::detail {
namespace {

using namespace test;

Endpoint parse_endpoint(const std::string& url) {
    return parse_servers({&url, 1}).endpoints.at(0);
}

TEST(EndpointTest, AUrlHasAddressAndCredentials) {
    Endpoint endpoint = parse_endpoint("redis://cache");
    EXPECT_EQ(endpoint.host, "cache");
    EXPECT_EQ(endpoint.port, 6379);
    EXPECT_EQ(endpoint.db, 0U);
    EXPECT_TRUE(endpoint.user.empty() && endpoint.password.empty() && endpoint.path.empty());

    endpoint = parse_endpoint("redis://kv%40home:a%3ab@c%25@10.0.0.1:7000/15");
    EXPECT_EQ(endpoint.user, "kv@home");
    EXPECT_EQ(endpoint.password, "a:b@c%");
    EXPECT_EQ(endpoint.host, "10.0.0.1");
    EXPECT_EQ(endpoint.port, 7000);
    EXPECT_EQ(endpoint.db, 15U);
    EXPECT_EQ(endpoint.title(), "10.0.0.1:7000");

    endpoint = parse_endpoint("redis://:secret@[::1]:7000/");
    EXPECT_TRUE(endpoint.user.empty());
    EXPECT_EQ(endpoint.password, "secret");
    EXPECT_EQ(endpoint.host, "::1");
    EXPECT_EQ(endpoint.port, 7000);
    EXPECT_EQ(parse_endpoint("redis://[::1]").port, 6379);

    endpoint = parse_endpoint("unix:/run/redis.sock");
    EXPECT_EQ(endpoint.path, "/run/redis.sock");
    EXPECT_EQ(endpoint.title(), "/run/redis.sock");
    EXPECT_EQ(parse_endpoint("unix:/run/redis.sock?db=3").db, 3U);
    endpoint = parse_endpoint("unix://kv:a%40b@/run/redis@1.sock?db=3");
    EXPECT_EQ(endpoint.user, "kv");
    EXPECT_EQ(endpoint.password, "a@b");
    EXPECT_EQ(endpoint.path, "/run/redis@1.sock");
    EXPECT_EQ(endpoint.db, 3U);
}

TEST(EndpointTest, AMalformedUrlIsRefusedWithAReason) {
    for (const char* url : {"",
                            "redis",
                            "redis:/",
                            "redis://",
                            "http://host",
                            "redis://host:",
                            "redis://host:port",
                            "redis://host:65536",
                            "redis://host:-1",
                            "redis://host/x",
                            "redis://host/1/2",
                            "redis://user@host",
                            "redis://user:@host",
                            "redis://:%4@host",
                            "redis://:%zz@host",
                            "redis://:%@host",
                            "redis://[::1",
                            "redis://[::1]7000",
                            "redis://:7000",
                            "unix:",
                            "unix:relative",
                            "unix:/path?x=1",
                            "unix:///path",
                            "unix://kv@/path",
                            "unix:/path?db="}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { parse_endpoint(url); },
                            {"redis://[user:password@]host[:port][/db]"}))
            << url;
    }
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                        [] { parse_endpoint(std::string("redis://a\0b", 11)); }));
}

ServerList parse(const std::vector<std::string>& urls) {
    return parse_servers(urls);
}

TEST(EndpointTest, AClusterIsKnownBySomeOfItsServers) {
    EXPECT_EQ(parse({"redis://a"}).topology, Topology::Single);
    EXPECT_EQ(parse_endpoint("valkey://a:7000").port, 7000);
    const ServerList servers =
        parse({"redis+cluster://kv:secret@a:7000,[::1],c", "valkey+cluster://:other@d"});
    EXPECT_EQ(servers.topology, Topology::Cluster);
    ASSERT_EQ(servers.endpoints.size(), 4U);
    EXPECT_EQ(servers.endpoints[0].port, 7000);
    EXPECT_EQ(servers.endpoints[1].host, "::1");
    EXPECT_EQ(servers.endpoints[1].port, 6379);
    EXPECT_EQ(servers.endpoints[2].password, "secret");
    EXPECT_EQ(servers.endpoints[3].password, "other");
}

TEST(EndpointTest, SentinelsAreNotToldThePasswordOfTheirServers) {
    const ServerList servers = parse({"redis+sentinel://kv:secret@a,b:7000/kv%20cache/3"});
    EXPECT_EQ(servers.topology, Topology::Sentinel);
    ASSERT_EQ(servers.endpoints.size(), 2U);
    EXPECT_EQ(servers.endpoints[0].port, 26379);
    EXPECT_EQ(servers.endpoints[1].port, 7000);
    EXPECT_TRUE(servers.endpoints[0].password.empty());
    EXPECT_EQ(servers.endpoints[0].db, 0U);
    EXPECT_EQ(servers.service, "kv cache");
    EXPECT_EQ(servers.master.password, "secret");
    EXPECT_EQ(servers.master.db, 3U);
}

TEST(EndpointTest, WhatDoesNotGoTogetherIsRefused) {
    for (const std::vector<std::string>& urls : {std::vector<std::string>{"redis://a", "redis://b"},
                                                 {"redis+cluster://a", "redis://b"},
                                                 {"redis+cluster://a/1"},
                                                 {"redis+cluster://a,"},
                                                 {"redis+sentinel://a"},
                                                 {"redis+sentinel://a/"},
                                                 {"redis+sentinel://a/x/y"},
                                                 {"redis+sentinel://a/x", "redis+sentinel://b/y"},
                                                 {"redis://a,b"},
                                                 {"redis+other://a"}}) {
        EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { parse(urls); })) << urls[0];
    }
}

TEST(EndpointTest, TlsIsRefusedInWordsOfItsOwn) {
    for (const char* url : {"rediss://:secret@a", "valkeys://a", "rediss+cluster://a"}) {
        EXPECT_TRUE(
            refuses(ErrorCode::InvalidArgument, [&] { parse_endpoint(url); }, {"TLS", "proxy"}))
            << url;
    }
}

TEST(EndpointTest, NoErrorShowsAPassword) {
    for (const char* url :
         {"redis://u:secret@host:port", "redis://u:secret@", "x://u:secret@h", "redis://u:secret",
          "redis://u:secret#host:6379", "redis://h?password=secret", "redis://h/0?password=secret",
          "redis+cluster://a:secret,b", "unix:/x?password=secret"}) {
        try {
            parse_endpoint(url);
            ADD_FAILURE() << url;
        } catch (const Error& error) {
            EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos) << error.what();
        }
    }
}

}  // namespace
}  // namespace penstock::detail
