<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\ConnectionException;
use Mega\Exception\InvalidArgumentException;
use Mega\Exception\MegaException;
use Psr\Log\LoggerInterface;

/**
 * A client of one mega, over one connection that is made when it is first needed and made anew when it is lost. It
 * belongs to the process that made it: after a fork, make another.
 */
final class Client
{
    private readonly Pipeline $pipeline;

    /** @param string $address HOST:PORT, [::1]:PORT for IPv6 */
    public function __construct(string $address, ?Options $options = null, ?LoggerInterface $logger = null)
    {
        $isAddress = preg_match('/^([^\s:\/]+|\\[[0-9A-Fa-f:.]+(%\w+)?\]):([0-9]{1,5})$/D', $address, $parts) === 1;
        // The system would take a larger port for another one.
        if (!$isAddress || $parts[3] < 1 || $parts[3] > 65535) {
            throw new InvalidArgumentException("address $address: HOST:PORT, or [IPV6]:PORT, with a port of 1 to 65535");
        }
        $this->pipeline = new Pipeline($address, $options ?? new Options(), $logger);
    }

    /**
     * Returns when WeChat has accepted the message.
     *
     * @param array<int|string, scalar|null> $data
     * @throws MegaException
     */
    public function send(string $openid, string $key, array $data = [], ?string $id = null): void
    {
        $this->ask(Call::message(Command::Send, new Message($openid, $key, $data, $id), new \SplQueue()));
    }

    /**
     * Returns when the message is safely queued.
     *
     * @param array<int|string, scalar|null> $data
     * @throws MegaException
     */
    public function push(string $openid, string $key, array $data = [], ?string $id = null): void
    {
        $this->ask(Call::message(Command::Push, new Message($openid, $key, $data, $id), new \SplQueue()));
    }

    /**
     * Returns when mega has read the template from its database again.
     *
     * @throws MegaException
     */
    public function tset(string $key): void
    {
        $this->ask(Call::tset($key, new \SplQueue()));
    }

    /**
     * Sends a list, at most `$window` of it without an answer at a time. Failures of single messages are in their
     * results; what ends the batch, mega out of reach or an exception of the list, is thrown when all that was taken
     * from the list has its result. Whoever leaves the loop early does not learn what became of the rest of
     * the window.
     *
     * @param iterable<mixed, Message> $messages
     * @return \Generator<mixed, Result> under the list's keys, in the order of the answers
     */
    public function sendMany(iterable $messages, int $window = 64): \Generator
    {
        return (new Batch($this->pipeline, Command::Send, $messages, $window))->run();
    }

    /**
     * Queues a list; otherwise as `sendMany`.
     *
     * @param iterable<mixed, Message> $messages
     * @return \Generator<mixed, Result> under the list's keys, in the order of the answers
     */
    public function pushMany(iterable $messages, int $window = 256): \Generator
    {
        return (new Batch($this->pipeline, Command::Push, $messages, $window))->run();
    }

    /** Ends the connection; the next request makes another. */
    public function close(): void
    {
        $this->pipeline->close();
    }

    private function ask(Call $call): void
    {
        $this->pipeline->begin($call);
        try {
            while ($call->inbox->isEmpty()) {
                $this->pipeline->wait();
            }
        } catch (ConnectionException) {
            // The call was settled with what that means for it.
        } finally {
            $this->pipeline->abandon($call->inbox);
        }
        if ($call->failure !== null) {
            throw $call->failure;
        }
    }
}
