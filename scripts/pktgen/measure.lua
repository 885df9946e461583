-- What Pktgen-DPDK does for scripts/pktgen/run: the search for the rate without loss (RFC 2544, 26.1),
-- latency and its variation, or a steady load during which somebody moves VMs.
--
-- Everything comes by the environment, and each result goes as a line of JSON to GODWIT_RESULTS. A line
-- with "failed" says that there is no result, and why; scripts/pktgen/run ends with an error then.
-- scripts/pktgen/check.lua runs this file over a model of Pktgen.

local function setting(name, default)
    local value = os.getenv("GODWIT_" .. name)
    if value == nil or value == "" then return default end
    return tonumber(value) or value
end

local mode = setting("MODE", "throughput")
local seconds = setting("SECONDS", 60)
local repeats = setting("REPEATS", 20)
local resolution = setting("RESOLUTION", 0.1)
local highest = setting("RATE", 100)
local name = setting("NAME", "")
-- Mean length of a frame on the sender's link, without FCS.
local bytes = setting("BYTES", 60)
-- Speed of the sender's link in Mbit/s, where its driver does not say or says what is not so (memif).
local link = setting("LINK", 0)
local results = setting("RESULTS", "/dev/stdout")
local samples_file = setting("SAMPLES", "/tmp/godwit-pktgen.samples")

-- Port numbers of Pktgen.
local SEND, RECEIVE = "0", "1"
-- Frames under way arrive within this time, in seconds (RFC 2544 asks for 2).
local SETTLE = 2
-- Latency probes a second, at most.
local PROBES = 1000
-- Those of a release whose interval cannot be set.
local OLD_PROBES = 100
-- After a sample the sampler leaves out what comes within an interval of its own, and a probe is early or late: so
-- the interval is this much shorter than that of the probes.
local OFTEN = 10
-- Samples of one trial. Pktgen keeps a few more than 50,000 a queue, and refuses to be asked for more with a
-- line in its log only.
local SAMPLES = 50000
-- What a frame takes of the link besides its bytes: FCS, preamble, gap.
local WIRE = 4 + 8 + 12
-- A generator that sends less or more than these shares of what was asked of it has not been the load it is taken for.
local SHORT, LONG = 0.98, 1.02
-- Where it sends probes among its frames it skips a few for each (23.03.1 four).
local SHORT_WITH_PROBES = 0.95
-- A trial whose probes are lost in greater number has not been measured.
local PROBES_BACK = 0.5
-- Each search ends after so many trials.
local TRIALS = 20

local failed = false

local function tell(format, ...)
    local file = assert(io.open(results, "a"))
    file:write(string.format(format, ...), "\n")
    file:close()
end

local function fail(format, ...)
    failed = true
    tell('{"name":"%s","failed":"%s"}', name, string.format(format, ...))
end

-- Seconds since the machine's start, to the hundredth.
local function now()
    local file = assert(io.open("/proc/uptime", "r"))
    local seconds_up = assert(file:read("n"), "/proc/uptime has no number")
    file:close()
    return seconds_up
end

-- Lets `time` seconds pass by the machine's clock, and returns how many they were. Pktgen's own delay is a sum of
-- short ones, each of which takes longer where the display shares its core.
local function wait(time)
    local began = now()
    local left = time
    while left > 0 do
        pktgen.delay(math.max(1, math.floor(math.min(left, 0.1) * 1000)))
        left = time - (now() - began)
    end
    return now() - began
end

local function counts(port)
    return pktgen.portStats(port, "port")[tonumber(port)]
end

-- Mbit/s that Pktgen takes the sender's link for, or nil: the rates that it is told are shares of that, whatever the
-- link is.
local function believed_speed()
    local said = pktgen.linkState(SEND)
    -- As in <UP-10000-FD>.
    local found = tonumber(string.match(tostring(said and said[tonumber(SEND)]), "UP%-(%d+)"))
    return found ~= 0 and found or nil
end

-- Mbit/s of the sender's link as it is and as Pktgen takes it.
local mbits, believed = nil, nil

-- Learns both. Returns nil, or why there is no rate to send at.
local function learn_speed()
    believed = believed_speed()
    if believed == nil then
        return "Pktgen sees no speed of the sender's link: is its other end up, and does its driver say one?"
    end
    if link > 0 then
        mbits = link
    elseif believed > 4000000 then
        -- A driver that does not know says the largest number that there is.
        return "the speed of the sender's link is unknown: give it with --link"
    else
        mbits = believed
    end
    return nil
end

-- Frames a second that `rate` percent of the link are.
local function wanted(rate)
    return rate / 100 * mbits * 1e6 / ((bytes + WIRE) * 8)
end

-- Tells Pktgen to send at `rate` percent of the link. Returns nil, or why it cannot.
local function order(rate)
    local share = rate * mbits / believed
    if share > 100 then
        return string.format("Pktgen takes the link for one of %d Mbit/s and sends no more than that", believed)
    end
    pktgen.set(SEND, "rate", share)
    return nil
end

-- Why a trial is void where the generator's time or its sending cannot be trusted (R76), and whether a lower rate
-- may do better. `probes` were asked for, in place of frames or on top of the rate.
local function void(sent, took, asked, rate, probes)
    local frames, errors = sent.opackets or 0, sent.oerrors or 0
    if math.abs(took - asked) > 1 then
        return string.format("%.1f s by the clock where %d were asked for", took, asked), false
    end
    if frames == 0 then return "the generator sent nothing", false end
    if errors > 0 then return string.format("the generator could not send %d frames", errors), true end
    local load = wanted(rate) * took
    local short = probes > 0 and SHORT_WITH_PROBES or SHORT
    if frames < short * load or frames > LONG * load + probes then
        return string.format("the generator sent %.1f %% of what was asked of it", 100 * frames / load), true
    end
    return nil
end

-- Sends at `rate` percent of the link for `time` seconds. Returns frames sent and received, and seconds; or nil, why
-- the trial is void, and whether a lower rate may do better.
local function trial(rate, time)
    pktgen.clr()
    local cannot = order(rate)
    if cannot then return nil, cannot, true end
    pktgen.start(SEND)
    local took = wait(time)
    pktgen.stop(SEND)
    wait(SETTLE)
    local sent, received = counts(SEND), counts(RECEIVE)
    local why, lower = void(sent, took, time, rate, 0)
    if why then return nil, why, lower end
    return sent.opackets, received.ipackets, took
end

-- Frames before the first trial: switches learn from them, and Pktgen, which catches up with what it missed while
-- it was not sending, comes into its pace.
local function warm_up()
    if order(highest) then return end
    pktgen.start(SEND)
    wait(SETTLE)
    pktgen.stop(SEND)
    wait(SETTLE)
end

-- The highest rate at which every frame that was sent arrived. A rate that the generator does not reach is no
-- rate of the switch: the search goes on below it, and the result says by whom it is limited.
local function throughput()
    local low, high, rate = 0, highest, highest
    local mpps, limit = nil, "asked"
    warm_up()
    for _ = 1, TRIALS do
        local sent, received, last = trial(rate, seconds)
        if sent == nil then
            tell('{"name":"%s","trial":true,"rate_percent":%.3f,"void":"%s"}', name, rate, received)
            if not last then return fail("%s", received) end
            high, limit = rate, "generator"
        else
            tell('{"name":"%s","trial":true,"rate_percent":%.3f,"sent":%d,"received":%d}',
                name, rate, sent, received)
            if received >= sent then
                low, mpps = rate, sent / last / 1e6
            else
                high, limit = rate, "switch"
            end
        end
        if high - low <= resolution or low >= highest then break end
        rate = (low + high) / 2
    end
    if mpps == nil then
        return fail("no rate without loss was found: at %.3f %% the %s is still at its limit", high, limit)
    end
    tell('{"name":"%s","zero_loss_percent":%.3f,"zero_loss_mpps":%.4f,"seconds":%d,"limited_by":"%s"}',
        name, low, mpps, seconds, limit)
end

-- Latencies in nanoseconds, sorted, from the sampler's file: a heading, then one a line.
local function samples()
    local all = {}
    local file = io.open(samples_file, "r")
    if file == nil then return all end
    for line in file:lines() do
        local value = tonumber(line)
        if value then all[#all + 1] = value end
    end
    file:close()
    table.sort(all)
    return all
end

local function at(sorted, share)
    return sorted[math.max(1, math.ceil(share * #sorted))]
end

-- Latency at the rate that was given, and its variation: the 99.9th percentile less the minimum (R76). Pktgen
-- gives its probes a length of their own, the shortest; `bytes` are those of the frames they travel among.
local function latency()
    local probes = math.max(1, math.min(PROBES, math.floor(SAMPLES / seconds)))
    -- Microseconds from probe to probe. Older releases do not take the order and send one in ten milliseconds.
    if not pcall(pktgen.latency, SEND, "rate", math.ceil(1e6 / probes)) then
        probes = math.min(probes, OLD_PROBES)
    end
    local expected = probes * seconds
    if expected > SAMPLES then return fail("%d s are too long: there is room for %d samples", seconds, SAMPLES) end
    -- From the sending port's VM to the first VM elsewhere.
    pktgen.set_mac(SEND, "src", "02:10:00:00:00:01")
    pktgen.set_mac(SEND, "dst", "02:20:00:00:00:00")
    pktgen.set_ipaddr(SEND, "src", "10.1.0.1/32")
    pktgen.set_ipaddr(SEND, "dst", "10.128.0.0")
    pktgen.set_proto(SEND, "udp")
    pktgen.set(SEND, "size", bytes + 4)
    pktgen.latency(SEND, "enable")
    pktgen.latency(RECEIVE, "enable")
    local good = 0
    warm_up()
    for n = 1, repeats do
        os.remove(samples_file)
        pktgen.clr()
        local cannot = order(highest)
        if cannot then return fail("%s", cannot) end
        pktgen.latsampler_params(RECEIVE, "simple", expected, OFTEN * probes, samples_file)
        pktgen.start(SEND)
        pktgen.latsampler(RECEIVE, "enable")
        local took = wait(seconds)
        pktgen.latsampler(RECEIVE, "disable")
        pktgen.stop(SEND)
        local why = void(counts(SEND), took, seconds, highest, expected)
        local all = samples()
        if why == nil and #all == 0 then
            why = "no probe came back as it was sent, or Pktgen's sampler refused its orders (see its log)"
        elseif why == nil and #all < PROBES_BACK * expected then
            why = string.format("%d of %d probes came back", #all, expected)
        end
        if why then
            tell('{"name":"%s","trial":%d,"void":"%s"}', name, n, why)
        else
            good = good + 1
            tell('{"name":"%s","trial":%d,"rate_percent":%.3f,"background_bytes":%d,"probes":%d,"min_us":%.3f,'
                .. '"p50_us":%.3f,"p99_us":%.3f,"p999_us":%.3f,"max_us":%.3f,"pdv_us":%.3f}',
                name, n, highest, bytes, #all, all[1] / 1e3, at(all, 0.5) / 1e3, at(all, 0.99) / 1e3,
                at(all, 0.999) / 1e3, all[#all] / 1e3, (at(all, 0.999) - all[1]) / 1e3)
        end
        wait(SETTLE)
    end
    if good == 0 then fail("all %d trials are void", repeats) end
end

-- A steady load; what is lost is lost to what happened meanwhile.
local function load()
    warm_up()
    tell('{"name":"%s","ready":true}', name)
    local sent, received = trial(highest, seconds)
    if sent == nil then
        fail("%s", received)
    else
        tell('{"name":"%s","rate_percent":%.3f,"seconds":%d,"sent":%d,"received":%d,"lost":%d}',
            name, highest, seconds, sent, received, sent - received)
    end
end

local function main()
    pktgen.screen("off")
    pktgen.set(SEND, "count", 0)
    pktgen.delay(1000)
    local unknown = learn_speed()
    if unknown then
        fail("%s", unknown)
    elseif mode == "throughput" then
        throughput()
    elseif mode == "latency" then
        latency()
    else
        load()
    end
end

-- A mistake in here would leave Pktgen waiting for orders for ever.
local good, why = pcall(main)
if not good then fail("%s", (string.gsub(tostring(why), '["\\%c]', "'"))) end
-- All is said: a line that is missing means that the script was broken off.
tell('{"name":"%s","done":%s}', name, failed and "false" or "true")
pktgen.quit()
