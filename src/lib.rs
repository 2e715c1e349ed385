//! Portcullis: the login wall for a portal that its owners cannot change.

pub mod clock;
pub mod errors;
pub mod random;
pub mod sealing;
pub mod secret;

pub mod database;
pub mod redis_pool;
pub mod telemetry;
pub mod web;

pub mod audit;
pub mod credentials;
pub mod rollout;
pub mod sessions;
pub mod throttle;
pub mod users;

pub mod account;
pub mod gate;
pub mod identity;
pub mod login;

pub mod pages;
pub mod proxy;
pub mod server;
pub mod tls;
pub mod upstream;

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod gateway;
